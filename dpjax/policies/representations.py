"""How the network sees the data: rotations as 6-D, and actions relative to an observation.

The layout of a column says where its rotations are (`layouts`). The network sees them as 6-D.
Sampled actions are converted back to the form of the data.

Relative actions (as in UMI, Chi et al. 2024, sec. III-B) are expressed relative to the latest
observation of a pose, by equations (1) and (2) of `layouts`. All steps of an action chunk are
relative to the same pose. Sampled actions are converted back to absolute ones. Parts of the action
that the pose does not have, such as a gripper, are always absolute.

`wrap` applies both to a policy, so that data, simulator and robot do not need to know about them.
"""

from collections.abc import Mapping
import dataclasses
from typing import NamedTuple

import numpy as np

from dpjax.core.errors import UserError, choices
from dpjax.core.types import ACTION, Array, Batch, Metrics, Observation, Params, PRNGKey
from dpjax.policies import layouts as layouts_lib
from dpjax.policies.base import Policy
from dpjax.policies.layouts import AnyArray, Pair, Part, decode_part, encode_part, map_parts


class Representation(NamedTuple):
    """How the network sees the columns of the data.

    layouts: {column: its parts}; a column without an entry has plain numbers only.
    relative: the observation that actions are expressed relative to; "" for absolute actions.
    latest: the index of the latest observed step, To - 1.
    """

    layouts: dict[str, tuple[Part, ...]]
    relative: str
    latest: int


def parse(layouts: Mapping[str, str], relative: str, observed: int) -> Representation:
    """Makes a Representation of layouts in text form, such as {column: "3 axis_angle 1"}.

    observed: To.

    Raises UserError if a text is not a layout.
    """
    parts = {key: layouts_lib.parse(key, text) for key, text in layouts.items()}
    return Representation(parts, relative, latest=observed - 1)


def parts_of(representation: Representation, key: str, size: int) -> tuple[Part, ...]:
    """The parts of a column with `size` numbers; a single plain part if it has no layout.

    Raises UserError if the layout describes another number of dims.
    """
    parts = representation.layouts.get(key, (Part("", size),))
    described = sum(part.size for part in parts)
    if described != size:
        # The layout as the user wrote it.
        text = " ".join(map(str, parts))
        raise UserError(
            f"layouts.{key}={text!r} describes {described} dims, but {key} has {size}.",
            argument=f"layouts.{key}",
        )
    return parts


def learned_sizes(
    representation: Representation, observations: Mapping, action: int
) -> tuple[dict, int]:
    """The sizes of a spec's observations and of its action for the network.

    observations: {key: size, or (H, W, 3)}. action: Da.

    Raises UserError if the representation does not fit the data.
    """
    # 1. All columns that the representation names must exist and hold numbers.
    for key in representation.layouts:
        _check_observation(key, f"layouts.{key}", observations, allow_action=True)
    if representation.relative:
        _check_observation(representation.relative, "relative", observations, allow_action=False)
    # 2. The sizes. `parts_of` raises if a layout and the data differ in size.
    learned_size = lambda key, size: sum(
        part.learned_size for part in parts_of(representation, key, size)
    )
    # Images, whose sizes are tuples, are not changed.
    sizes = {
        key: learned_size(key, size) if isinstance(size, int) else size
        for key, size in observations.items()
    }
    # 3. The action must begin with the parts of the pose: `_pairs` raises if it does not.
    if representation.relative:
        _pairs(representation, action, pose_size=observations[representation.relative])
    return sizes, learned_size(ACTION, action)


def _check_observation(
    key: str, argument: str, observations: Mapping, *, allow_action: bool
) -> None:
    """Raises UserError unless `key` is an observation of numbers, or the action if allowed."""
    # Images have tuples as sizes, and unknown keys have None.
    if (allow_action and key == ACTION) or isinstance(observations.get(key), int):
        return
    allowed = [name for name, size in observations.items() if isinstance(size, int)]
    allowed += [ACTION] * allow_action  # empty if the action is not allowed
    raise UserError(
        f"{argument}: {key!r} is not an observation of numbers; {choices(key, allowed)}.",
        argument=argument,
    )


def rotation_dims(representation: Representation, key: str, size: int) -> np.ndarray:
    """Which of the numbers that the network sees belong to rotations, bool [D].

    They are in [-1, 1] already, and scaling each of them would distort the rotation, so the
    normalizer leaves them unchanged. size: the column's size in the data.
    """
    parts = parts_of(representation, key, size)
    # One flag per part, repeated for each of its numbers.
    return np.repeat([bool(part.form) for part in parts], [part.learned_size for part in parts])


def encode(representation: Representation, key: str, x: AnyArray) -> AnyArray:
    """One column [..., D] with its rotations as 6-D."""
    # No part is relative to anything here.
    pairs: list[Pair] = [(part, None) for part in parts_of(representation, key, x.shape[-1])]
    return map_parts(encode_part, pairs, [part.size for part, _ in pairs], x, None)


def encode_obs(representation: Representation, obs: Mapping) -> dict:
    """Observations {name: [..., D]} with their rotations as 6-D."""
    layouts = representation.layouts
    # Columns without a layout, images among them, are passed on.
    return {key: encode(representation, key, x) if key in layouts else x for key, x in obs.items()}


def encode_actions(
    representation: Representation, actions: AnyArray, pose: AnyArray | None
) -> AnyArray:
    """Actions [..., T, Da] as the network sees them, [..., T, D].

    pose: [..., D_s], the s of (1) and (2); None for absolute actions.
    """
    # Each part of the action with its part of the pose, if any.
    pairs = _pairs(representation, actions.shape[-1], _size_of(pose))
    return map_parts(encode_part, pairs, [part.size for part, _ in pairs], actions, pose)


def decode_actions(
    representation: Representation, actions: AnyArray, pose: AnyArray | None
) -> AnyArray:
    """The inverse of `encode_actions`: [..., T, D] -> [..., T, Da]."""
    # Da is the size that the layout describes. Without a layout there are no rotations, and the
    # size is the same for the data and the network.
    described = sum(part.size for part in representation.layouts.get(ACTION, ()))
    pairs = _pairs(representation, described or actions.shape[-1], _size_of(pose))
    learned_sizes = [part.learned_size for part, _ in pairs]  # of the parts in `actions`
    return map_parts(decode_part, pairs, learned_sizes, actions, pose)


def latest_pose(representation: Representation, obs: Mapping) -> AnyArray | None:
    """The pose [B, D_s] that actions are relative to; None for absolute actions.

    obs: {name: [B, T, ...]}.

    Raises UserError if the observation is missing.
    """
    relative = representation.relative
    if not relative:
        return None
    if relative not in obs:
        raise UserError(
            f"relative={relative!r} is not an observation; {choices(relative, obs)}.",
            argument="relative",
        )
    # Index To - 1, not -1: with inpainting a training window holds all Tp observations.
    return obs[relative][:, representation.latest]


def learned_columns(
    representation: Representation, columns: Mapping, indices: np.ndarray | None
) -> dict:
    """Columns {name: [N, ...]} as the network sees them, for fitting a normalizer.

    indices: [W, Tp] the steps of all windows. The relative action of a step is different in
        every window, so W Tp actions are returned. For absolute actions there are N, and
        indices may be None.
    """
    observations = {key: x for key, x in columns.items() if key != ACTION}
    actions = columns[ACTION]
    pose = None  # absolute actions, unless the representation says otherwise
    if representation.relative:
        # Only the column of the pose is gathered: images would not fit into memory W Tp times.
        in_windows = {key: columns[key][indices] for key in [representation.relative]}
        pose = latest_pose(representation, in_windows)  # [W, D_s]
        actions = actions[indices]  # [W, Tp, Da]
    actions = encode_actions(representation, actions, pose)
    return {
        **encode_obs(representation, observations),
        ACTION: actions.reshape(-1, actions.shape[-1]),  # [W Tp, D] or [N, D]
    }


def _size_of(pose: AnyArray | None) -> int | None:
    return None if pose is None else pose.shape[-1]


def _pairs(representation: Representation, action_size: int, pose_size: int | None) -> list[Pair]:
    """The parts of the action, each with the part of the pose that it is relative to."""
    action_parts = parts_of(representation, ACTION, action_size)
    relative = representation.relative
    # Without a pose all parts of the action are absolute.
    pose_parts = () if pose_size is None else parts_of(representation, relative, pose_size)
    return layouts_lib.pair(action_parts, pose_parts, relative)


def wrap(policy: Policy, representation: Representation) -> Policy:
    """`policy`, which works in the form of the network, wrapped to work in that of the data."""
    if not representation.layouts and not representation.relative:
        return policy  # the two forms are the same

    # 1. Training: batches are encoded.
    def encode_batch(batch: Batch) -> Batch:
        pose = latest_pose(representation, batch.obs)  # [B, D_s]
        actions = encode_actions(representation, batch.actions, pose)
        obs = encode_obs(representation, batch.obs)
        return dataclasses.replace(batch, obs=obs, actions=actions)

    def init(rng: PRNGKey, batch: Batch) -> Params:
        return policy.init(rng, encode_batch(batch))

    def loss(params: Params, rng: PRNGKey, batch: Batch) -> tuple[Array, Metrics]:
        return policy.loss(params, rng, encode_batch(batch))

    # 2. Sampling: observations are encoded, and actions are decoded.
    def sample(
        params: Params,
        rng: PRNGKey,
        obs: Observation,
        previous: Array | None = None,
        committed: Array | None = None,
    ) -> Array:
        pose = latest_pose(representation, obs)
        if previous is not None:  # relative to the present pose, like the new chunk
            previous = encode_actions(representation, previous, pose)
        obs = encode_obs(representation, obs)
        actions = policy.sample(params, rng, obs, previous, committed)
        return decode_actions(representation, actions, pose)  # [B, Tp, Da]

    return Policy(init, loss, sample)
