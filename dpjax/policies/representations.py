"""What a policy learns in place of what the data holds: 6-D rotations, relative actions.

A layout says what the numbers of a column are, part after part: a whole number for so many
plain ones, or a form of `rotations.FORMS`. "3 axis_angle 1" is a position, a rotation and a
gripper. The network sees every rotation as 6-D; a plan is in the data's form again.

Relative actions (as UMI's, Chi et al. 2024, sec. III-B) are taken from the newest
observation of a pose s, at each step of the chunk, and put back on it when the policy acts:

    plain parts     a' = a - s                                                (1)
    rotations       R' = R_s^T R_a                                            (2)

Parts of the action that the pose does not have (a gripper) stay absolute. `wrap` puts both
around a policy, so that data, simulator and robot know nothing of them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dpjax.core import rotations
from dpjax.core.errors import UserError, choices
from dpjax.core.types import ACTION, Array, Batch
from dpjax.policies.base import Policy

LEARNED = "rotation_6d"  # the form that the network sees


class Part(NamedTuple):
    """Numbers of one kind, side by side. form: of `rotations.FORMS`; "" for plain ones."""

    form: str
    size: int

    @property
    def learned(self) -> int:
        """How many numbers it is to the network."""
        return rotations.FORMS[LEARNED][0] if self.form else self.size


class Spaces(NamedTuple):
    """layouts: {column: its parts}; a column without is plain. relative: the observation
    that actions are taken from, "" for absolute ones. now: the place of the newest one, To - 1.
    """

    layouts: dict[str, tuple[Part, ...]]
    relative: str
    now: int


def make(layouts: Mapping[str, str], relative: str, observed: int) -> Spaces:
    """Spaces of layouts as text, {column: "3 axis_angle 1"}. observed: To."""
    return Spaces({key: _parse(key, text) for key, text in layouts.items()}, relative, observed - 1)


def _parse(key, text):
    parts = []
    for word in str(text).split():
        if word.isdigit() and int(word):
            parts.append(Part("", int(word)))
        elif word in rotations.FORMS:
            parts.append(Part(word, rotations.FORMS[word][0]))
        else:
            raise UserError(
                f"config.spaces.layouts.{key}={text!r}: {word!r} is no number of plain dims, "
                f"nor a rotation; {choices(word, rotations.FORMS)}."
            )
    if not parts:
        raise UserError(f"config.spaces.layouts.{key} is empty: such as '3 axis_angle 1'.")
    return tuple(parts)


def parts_of(spaces: Spaces, key: str, size: int) -> tuple[Part, ...]:
    """The parts of a column of that size; plain where no layout says more."""
    parts = spaces.layouts.get(key, (Part("", size),))
    described = sum(part.size for part in parts)
    if described != size:
        raise UserError(
            f"config.spaces.layouts.{key} describes {described} dims "
            f"({' '.join(part.form or str(part.size) for part in parts)}), and {key} has {size}."
        )
    return parts


def encode(spaces: Spaces, key: str, x):
    """One column [..., D] with its rotations as 6-D."""
    parts = [(part, None) for part in parts_of(spaces, key, x.shape[-1])]
    return _each(_inward, parts, [part.size for part, _ in parts], x, None)


def encode_actions(spaces: Spaces, actions, pose):
    """Actions [..., T, Da] as the network sees them: (1) and (2) of pose [..., D], or None."""
    pairs = _pairs(spaces, actions.shape[-1], pose)
    return _each(_inward, pairs, [part.size for part, _ in pairs], actions, pose)


def decode_actions(spaces: Spaces, actions, pose):
    """The inverse of `encode_actions`: [..., T, learned size] -> [..., T, Da]."""
    described = sum(part.size for part in spaces.layouts.get(ACTION, ()))
    pairs = _pairs(spaces, described or actions.shape[-1], pose)
    return _each(_outward, pairs, [part.learned for part, _ in pairs], actions, pose)


def _inward(part, other, x, pose):
    """A part of the action to what the network sees of it; other: the pose's, or None."""
    if not part.form:
        return x - pose if other else x
    matrix = rotations.FORMS[part.form][1](x)
    if other:
        matrix = rotations.FORMS[other.form][1](pose).swapaxes(-1, -2) @ matrix
    return rotations.to_rotation_6d(matrix)


def _outward(part, other, x, pose):
    """The inverse of `_inward`."""
    if not part.form:
        return x + pose if other else x
    matrix = rotations.from_rotation_6d(x)
    if other:
        matrix = rotations.FORMS[other.form][1](pose) @ matrix
    return rotations.FORMS[part.form][2](matrix)


def _each(turn, pairs, sizes, x, pose):
    """turn(part, other, numbers, the pose's numbers) of all parts, side by side."""
    done = seen = 0
    out = []
    for (part, other), size in zip(pairs, sizes):
        width = other.size if other else 0
        beside = None if pose is None else pose[..., None, seen : seen + width]
        out.append(turn(part, other, x[..., done : done + size], beside))
        done, seen = done + size, seen + width
    return (np if isinstance(x, np.ndarray) else jnp).concatenate(out, -1)


def _pairs(spaces: Spaces, size: int, pose):
    """[(part of the action, the pose's part that it is taken from, or None)], in order.

    The action begins with the pose's parts; its plain ones are cut to fit.
    """
    action = list(parts_of(spaces, ACTION, size))
    if pose is None:
        return [(part, None) for part in action]
    pairs = []
    for part in parts_of(spaces, spaces.relative, pose.shape[-1]):
        own = action.pop(0) if action else Part("", 0)
        if bool(own.form) != bool(part.form) or (not own.form and own.size < part.size):
            raise UserError(
                f"config.spaces.relative={spaces.relative!r}: the action must begin with the "
                f"parts of {spaces.relative}, whose part {len(pairs)} is "
                f"{part.form or part.size}; the action's is {own.form or own.size} "
                "(config.spaces.layouts)."
            )
        if not own.form and own.size > part.size:
            action.insert(0, Part("", own.size - part.size))
            own = part
        pairs.append((own, part))
    return pairs + [(part, None) for part in action]


def pose_of(spaces: Spaces, obs: Mapping):
    """The newest observation [B, D] of {name: [B, T, D]} that actions are relative to, or None."""
    if not spaces.relative:
        return None
    if spaces.relative not in obs:
        raise UserError(
            f"config.spaces.relative={spaces.relative!r} is no observation; "
            f"{choices(spaces.relative, obs)}."
        )
    return obs[spaces.relative][:, spaces.now]


def encode_obs(spaces: Spaces, obs: Mapping) -> dict:
    """{name: [..., D]} with rotations as 6-D; images as they are."""
    return {key: encode(spaces, key, x) if key in spaces.layouts else x for key, x in obs.items()}


def wrap(policy: Policy, spaces: Spaces) -> Policy:
    """The policy, taught in these spaces: its batches, observations and plans are the data's."""
    if not spaces.layouts and not spaces.relative:
        return policy

    def seen(batch: Batch) -> Batch:
        actions = encode_actions(spaces, batch.actions, pose_of(spaces, batch.obs))
        return batch.replace(obs=encode_obs(spaces, batch.obs), actions=actions)

    def sample(params, rng, obs, previous=None) -> Array:
        pose = pose_of(spaces, obs)
        if previous is not None:
            previous = encode_actions(spaces, previous, pose)
        actions = policy.sample(params, rng, encode_obs(spaces, obs), previous)
        return decode_actions(spaces, actions, pose)

    return Policy(
        init=lambda rng, batch: policy.init(rng, seen(batch)),
        loss=lambda params, rng, batch: policy.loss(params, rng, seen(batch)),
        sample=sample,
    )


def learned_sizes(spaces: Spaces, observations: Mapping, action: int) -> tuple[dict, int]:
    """The sizes of a spec's observations and action as the network sees them.

    observations: {key: size, or (H, W, 3)}. Refuses layouts that do not describe them.
    """
    for key in (*spaces.layouts, *filter(None, [spaces.relative])):
        if key != ACTION and not isinstance(observations.get(key), int):
            numbers = [name for name, size in observations.items() if isinstance(size, int)]
            raise UserError(
                f"config.spaces names {key!r}, which is no observation of numbers; "
                f"{choices(key, [*numbers, ACTION])}."
            )
    learned = lambda key, size: sum(part.learned for part in parts_of(spaces, key, size))
    sizes = {
        key: learned(key, size) if isinstance(size, int) else size
        for key, size in observations.items()
    }
    if spaces.relative:
        _pairs(spaces, action, np.zeros(observations[spaces.relative]))
    return sizes, learned(ACTION, action)


def flat(spaces: Spaces, columns: Mapping, rows: np.ndarray | None) -> dict:
    """Columns {name: [N, ...]} as a normalizer is fitted to them.

    rows: [W, Tp] of the windows: relative actions are those of all windows, [W Tp, D]; not
        looked at for absolute ones.
    """
    out = encode_obs(spaces, {key: x for key, x in columns.items() if key != ACTION})
    actions, pose = columns[ACTION], None
    if spaces.relative:
        pose = pose_of(spaces, {key: columns[key][rows] for key in [spaces.relative]})
        actions = actions[rows]
    actions = encode_actions(spaces, actions, pose)
    return {**out, ACTION: actions.reshape(-1, actions.shape[-1])}


def rotation_dims(spaces: Spaces, key: str, size: int) -> np.ndarray:
    """Which of the learned numbers [D] of a column, `size` in the data, are rotations'.

    They are within [-1, 1] and belong together: no normalizer scales them.
    """
    parts = parts_of(spaces, key, size)
    return np.repeat([bool(part.form) for part in parts], [part.learned for part in parts])
