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


class Representation(NamedTuple):
    """layouts: {column: its parts}; a column without is plain. relative: the observation
    that actions are taken from, "" for absolute ones. now: the place of the newest one, To - 1.
    """

    layouts: dict[str, tuple[Part, ...]]
    relative: str
    now: int


def parse(layouts: Mapping[str, str], relative: str, observed: int) -> Representation:
    """Representation of layouts as text, {column: "3 axis_angle 1"}. observed: To."""
    return Representation({key: _parse(key, text) for key, text in layouts.items()}, relative, observed - 1)


def _parse(key, text):
    parts = []
    for word in str(text).split():
        if word.isdigit() and int(word):
            parts.append(Part("", int(word)))
        elif word in rotations.FORMS:
            parts.append(Part(word, rotations.FORMS[word][0]))
        else:
            raise UserError(
                f"config.representation.layouts.{key}={text!r}: {word!r} is no number of plain dims, "
                f"nor a rotation; {choices(word, rotations.FORMS)}."
            )
    if not parts:
        raise UserError(f"config.representation.layouts.{key} is empty: such as '3 axis_angle 1'.")
    return tuple(parts)


def parts_of(representation: Representation, key: str, size: int) -> tuple[Part, ...]:
    """The parts of a column of that size; plain where no layout says more."""
    parts = representation.layouts.get(key, (Part("", size),))
    described = sum(part.size for part in parts)
    if described != size:
        raise UserError(
            f"config.representation.layouts.{key} describes {described} dims "
            f"({' '.join(part.form or str(part.size) for part in parts)}), and {key} has {size}."
        )
    return parts


def encode(representation: Representation, key: str, x):
    """One column [..., D] with its rotations as 6-D."""
    parts = [(part, None) for part in parts_of(representation, key, x.shape[-1])]
    return _each(_inward, parts, [part.size for part, _ in parts], x, None)


def encode_actions(representation: Representation, actions, pose):
    """Actions [..., T, Da] as the network sees them: (1) and (2) of pose [..., D], or None."""
    pairs = _pairs(representation, actions.shape[-1], pose)
    return _each(_inward, pairs, [part.size for part, _ in pairs], actions, pose)


def decode_actions(representation: Representation, actions, pose):
    """The inverse of `encode_actions`: [..., T, learned size] -> [..., T, Da]."""
    described = sum(part.size for part in representation.layouts.get(ACTION, ()))
    pairs = _pairs(representation, described or actions.shape[-1], pose)
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


def _pairs(representation: Representation, size: int, pose):
    """[(part of the action, the pose's part that it is taken from, or None)], in order.

    The action begins with the pose's parts; its plain ones are cut to fit.
    """
    action = list(parts_of(representation, ACTION, size))
    if pose is None:
        return [(part, None) for part in action]
    pairs = []
    for part in parts_of(representation, representation.relative, pose.shape[-1]):
        own = action.pop(0) if action else Part("", 0)
        if bool(own.form) != bool(part.form) or (not own.form and own.size < part.size):
            raise UserError(
                f"config.representation.relative={representation.relative!r}: the action must begin with the "
                f"parts of {representation.relative}, whose part {len(pairs)} is "
                f"{part.form or part.size}; the action's is {own.form or own.size} "
                "(config.representation.layouts)."
            )
        if not own.form and own.size > part.size:
            action.insert(0, Part("", own.size - part.size))
            own = part
        pairs.append((own, part))
    return pairs + [(part, None) for part in action]


def pose_of(representation: Representation, obs: Mapping):
    """The newest observation [B, D] of {name: [B, T, D]} that actions are relative to, or None."""
    if not representation.relative:
        return None
    if representation.relative not in obs:
        raise UserError(
            f"config.representation.relative={representation.relative!r} is no observation; "
            f"{choices(representation.relative, obs)}."
        )
    return obs[representation.relative][:, representation.now]


def encode_obs(representation: Representation, obs: Mapping) -> dict:
    """{name: [..., D]} with rotations as 6-D; images as they are."""
    return {key: encode(representation, key, x) if key in representation.layouts else x for key, x in obs.items()}


def wrap(policy: Policy, representation: Representation) -> Policy:
    """The policy, taught in these representation: its batches, observations and plans are the data's."""
    if not representation.layouts and not representation.relative:
        return policy

    def seen(batch: Batch) -> Batch:
        actions = encode_actions(representation, batch.actions, pose_of(representation, batch.obs))
        return batch.replace(obs=encode_obs(representation, batch.obs), actions=actions)

    def sample(params, rng, obs, previous=None) -> Array:
        pose = pose_of(representation, obs)
        if previous is not None:
            previous = encode_actions(representation, previous, pose)
        actions = policy.sample(params, rng, encode_obs(representation, obs), previous)
        return decode_actions(representation, actions, pose)

    return Policy(
        init=lambda rng, batch: policy.init(rng, seen(batch)),
        loss=lambda params, rng, batch: policy.loss(params, rng, seen(batch)),
        sample=sample,
    )


def learned_sizes(representation: Representation, observations: Mapping, action: int) -> tuple[dict, int]:
    """The sizes of a spec's observations and action as the network sees them.

    observations: {key: size, or (H, W, 3)}. Refuses layouts that do not describe them.
    """
    for key in (*representation.layouts, *filter(None, [representation.relative])):
        if key != ACTION and not isinstance(observations.get(key), int):
            numbers = [name for name, size in observations.items() if isinstance(size, int)]
            raise UserError(
                f"config.representation names {key!r}, which is no observation of numbers; "
                f"{choices(key, [*numbers, ACTION])}."
            )
    learned = lambda key, size: sum(part.learned for part in parts_of(representation, key, size))
    sizes = {
        key: learned(key, size) if isinstance(size, int) else size
        for key, size in observations.items()
    }
    if representation.relative:
        _pairs(representation, action, np.zeros(observations[representation.relative]))
    return sizes, learned(ACTION, action)


def flat(representation: Representation, columns: Mapping, rows: np.ndarray | None) -> dict:
    """Columns {name: [N, ...]} as a normalizer is fitted to them.

    rows: [W, Tp] of the windows: relative actions are those of all windows, [W Tp, D]; not
        looked at for absolute ones.
    """
    out = encode_obs(representation, {key: x for key, x in columns.items() if key != ACTION})
    actions, pose = columns[ACTION], None
    if representation.relative:
        pose = pose_of(representation, {key: columns[key][rows] for key in [representation.relative]})
        actions = actions[rows]
    actions = encode_actions(representation, actions, pose)
    return {**out, ACTION: actions.reshape(-1, actions.shape[-1])}


def rotation_dims(representation: Representation, key: str, size: int) -> np.ndarray:
    """Which of the learned numbers [D] of a column, `size` in the data, are rotations'.

    They are within [-1, 1] and belong together: no normalizer scales them.
    """
    parts = parts_of(representation, key, size)
    return np.repeat([bool(part.form) for part in parts], [part.learned for part in parts])
