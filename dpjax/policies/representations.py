"""How a policy sees rotations and actions: rotations as 6-D, actions relative to an observation.

The layout of a column names its rotations (`layouts`). The network sees each of them as 6-D, and
the sampled actions are in the data's form again.

Relative actions (as in UMI, Chi et al. 2024, sec. III-B) are expressed relative to the latest
observation of a pose, by equations (1) and (2) of `layouts`. All steps of an action chunk are
relative to the same pose, and the sampled actions are made absolute again. Parts of the action
that the pose does not have (a gripper) stay absolute.

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

    layouts: {column: its parts}; a column that is missing has plain numbers only.
    relative: the observation that actions are expressed relative to; "" for absolute actions.
    latest: the index of the latest observed step, To - 1.
    """

    layouts: dict[str, tuple[Part, ...]]
    relative: str
    latest: int


def parse(layouts: Mapping[str, str], relative: str, observed: int) -> Representation:
    """The Representation of layouts as text, {column: "3 axis_angle 1"}. observed: To.

    Raises UserError where a text is not a layout.
    """
    parts = {key: layouts_lib.parse(key, text) for key, text in layouts.items()}
    return Representation(parts, relative, latest=observed - 1)


def parts_of(representation: Representation, key: str, size: int) -> tuple[Part, ...]:
    """The parts of a column with `size` numbers; one plain part if it has no layout.

    Raises UserError if the layout has another size.
    """
    parts = representation.layouts.get(key, (Part("", size),))
    described = sum(part.size for part in parts)
    if described != size:
        text = " ".join(map(str, parts))
        raise UserError(
            f"layouts.{key}={text!r} describes {described} dims, but {key} has {size}.",
            argument=f"layouts.{key}",
        )
    return parts


def learned_sizes(
    representation: Representation, observations: Mapping, action: int
) -> tuple[dict, int]:
    """The sizes of a spec's observations and action as the network sees them.

    observations: {key: size, or (H, W, 3)}. action: Da.

    Raises UserError where the representation does not fit the data.
    """
    # 1. Everything that it names must be a column of numbers.
    for key in representation.layouts:
        _check_observation(key, f"layouts.{key}", observations, allow_action=True)
    if representation.relative:
        _check_observation(representation.relative, "relative", observations, allow_action=False)
    # 2. The sizes; this refuses layouts of another size than the data.
    learned_size = lambda key, size: sum(
        part.learned_size for part in parts_of(representation, key, size)
    )
    sizes = {
        key: learned_size(key, size) if isinstance(size, int) else size
        for key, size in observations.items()
    }
    # 3. The parts of the action must match those of the pose.
    if representation.relative:
        _pairs(representation, action, pose_size=observations[representation.relative])
    return sizes, learned_size(ACTION, action)


def _check_observation(
    key: str, argument: str, observations: Mapping, *, allow_action: bool
) -> None:
    """Raises UserError if `key` is not an observation of numbers (nor the action)."""
    if (allow_action and key == ACTION) or isinstance(observations.get(key), int):
        return
    allowed = [name for name, size in observations.items() if isinstance(size, int)]
    allowed += [ACTION] * allow_action
    raise UserError(
        f"{argument}: {key!r} is not an observation of numbers; {choices(key, allowed)}.",
        argument=argument,
    )


def rotation_dims(representation: Representation, key: str, size: int) -> np.ndarray:
    """Which of the learned numbers of a column belong to rotations, bool [D].

    They are in [-1, 1] and belong together, so no normalizer scales them. size: in the data.
    """
    parts = parts_of(representation, key, size)
    return np.repeat([bool(part.form) for part in parts], [part.learned_size for part in parts])


def encode(representation: Representation, key: str, x: AnyArray) -> AnyArray:
    """One column [..., D] with its rotations as 6-D."""
    pairs: list[Pair] = [(part, None) for part in parts_of(representation, key, x.shape[-1])]
    return map_parts(encode_part, pairs, [part.size for part, _ in pairs], x, None)


def encode_obs(representation: Representation, obs: Mapping) -> dict:
    """{name: [..., D]} with rotations as 6-D; images unchanged."""
    layouts = representation.layouts
    return {key: encode(representation, key, x) if key in layouts else x for key, x in obs.items()}


def encode_actions(
    representation: Representation, actions: AnyArray, pose: AnyArray | None
) -> AnyArray:
    """Actions [..., T, Da] as the network sees them, [..., T, D].

    pose: [..., D_s], the s of (1) and (2); None for absolute actions.
    """
    pairs = _pairs(representation, actions.shape[-1], _size_of(pose))
    return map_parts(encode_part, pairs, [part.size for part, _ in pairs], actions, pose)


def decode_actions(
    representation: Representation, actions: AnyArray, pose: AnyArray | None
) -> AnyArray:
    """The inverse of `encode_actions`: [..., T, D] -> [..., T, Da]."""
    # A layout tells the size in the data; without one it is the learned size.
    described = sum(part.size for part in representation.layouts.get(ACTION, ()))
    pairs = _pairs(representation, described or actions.shape[-1], _size_of(pose))
    learned_sizes = [part.learned_size for part, _ in pairs]
    return map_parts(decode_part, pairs, learned_sizes, actions, pose)


def latest_pose(representation: Representation, obs: Mapping) -> AnyArray | None:
    """The pose [B, D] that actions are relative to, of obs {name: [B, T, D]}; None if absolute."""
    relative = representation.relative
    if not relative:
        return None
    if relative not in obs:
        raise UserError(
            f"relative={relative!r} is not an observation; {choices(relative, obs)}.",
            argument="relative",
        )
    return obs[relative][:, representation.latest]


def learned_columns(
    representation: Representation, columns: Mapping, indices: np.ndarray | None
) -> dict:
    """Columns {name: [N, ...]} as a normalizer is fitted to them, {name: [M, ...]}.

    indices: the steps [W, Tp] of all windows. Relative actions differ from window to window, so
        there are M = W Tp of them; for absolute actions M = N and indices may be None.
    """
    observations = {key: x for key, x in columns.items() if key != ACTION}
    actions = columns[ACTION]
    pose = None
    if representation.relative:
        # Only the pose's column: others may be images, far too many to look up per window.
        in_windows = {key: columns[key][indices] for key in [representation.relative]}
        pose = latest_pose(representation, in_windows)
        actions = actions[indices]
    actions = encode_actions(representation, actions, pose)
    return {
        **encode_obs(representation, observations),
        ACTION: actions.reshape(-1, actions.shape[-1]),
    }


def _size_of(pose: AnyArray | None) -> int | None:
    return None if pose is None else pose.shape[-1]


def _pairs(representation: Representation, action_size: int, pose_size: int | None) -> list[Pair]:
    """The parts of the action, each with the pose's part that it is relative to, if any."""
    action_parts = parts_of(representation, ACTION, action_size)
    relative = representation.relative
    pose_parts = () if pose_size is None else parts_of(representation, relative, pose_size)
    return layouts_lib.pair(action_parts, pose_parts, relative)


def wrap(policy: Policy, representation: Representation) -> Policy:
    """The policy with batches, observations and actions in the data's form.

    The policy inside sees the network's form.
    """
    if not representation.layouts and not representation.relative:
        return policy

    def encode_batch(batch: Batch) -> Batch:
        pose = latest_pose(representation, batch.obs)
        actions = encode_actions(representation, batch.actions, pose)
        obs = encode_obs(representation, batch.obs)
        return dataclasses.replace(batch, obs=obs, actions=actions)

    def init(rng: PRNGKey, batch: Batch) -> Params:
        return policy.init(rng, encode_batch(batch))

    def loss(params: Params, rng: PRNGKey, batch: Batch) -> tuple[Array, Metrics]:
        return policy.loss(params, rng, encode_batch(batch))

    def sample(
        params: Params, rng: PRNGKey, obs: Observation, previous: Array | None = None
    ) -> Array:
        pose = latest_pose(representation, obs)
        # A previous chunk has to be relative to the present pose, as the new one will be.
        if previous is not None:
            previous = encode_actions(representation, previous, pose)
        actions = policy.sample(params, rng, encode_obs(representation, obs), previous)
        return decode_actions(representation, actions, pose)

    return Policy(init, loss, sample)
