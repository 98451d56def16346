"""Layouts: the parts of a column, and how the network sees each of them.

A layout names the parts of a column, one after the other: a whole number stands for that many
plain numbers, and a name in `rotations.FORMS` for a rotation. "3 axis_angle 1" is a position, a
rotation and a gripper. The network sees every rotation as 6-D, the continuous form of
`core.rotations`.

A part a of the action may be relative to the same part s of a pose:

    plain parts     a' = a - s                                                (1)
    rotations       R' = R_s^T R_a                                            (2)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dpjax.core import rotations
from dpjax.core.errors import UserError, choices

# The form in which the network sees every rotation.
LEARNED = rotations.FORMS["rotation_6d"]

AnyArray = Any  # np.ndarray or jax.Array; the functions below return the kind they are given


class Part(NamedTuple):
    """Adjacent numbers of a column that belong together.

    form: a name in `rotations.FORMS`, or "" for plain numbers.
    size: how many numbers they are in the data.
    """

    form: str
    size: int

    @property
    def learned_size(self) -> int:
        """How many numbers the network sees."""
        return LEARNED.size if self.form else self.size

    def __str__(self) -> str:
        return self.form or str(self.size)


Pair = tuple[Part, Part | None]  # a part of the action, and the pose's part that it is relative to


def parse(key: str, text: str) -> tuple[Part, ...]:
    """The parts that the layout of a column names.

    Raises UserError if the text is not a layout. key: the column's, for the error.
    """
    argument = f"layouts.{key}"
    parts = []
    for word in str(text).split():
        if word.isdigit() and int(word):
            parts.append(Part("", int(word)))
        elif word in rotations.FORMS:
            parts.append(Part(word, rotations.FORMS[word].size))
        else:
            raise UserError(
                f"{argument}={text!r}: {word!r} is neither a number of plain dims nor a "
                f"rotation; {choices(word, rotations.FORMS)}.",
                argument=argument,
            )
    if not parts:
        raise UserError(
            f"{argument}='' names no parts: give some, such as '3 axis_angle 1'.",
            argument=argument,
        )
    return tuple(parts)


def pair(action_parts: tuple[Part, ...], pose_parts: tuple[Part, ...], relative: str) -> list[Pair]:
    """The parts of the action in order, each with the pose's part that it is relative to.

    The action must begin with the parts of the pose. Its remaining parts stay absolute.
    relative: the pose's name.

    Raises UserError if it does not begin with them.
    """
    # The parts of the action that have no partner yet, the next one first.
    remaining = list(action_parts)
    pairs: list[Pair] = []
    for pose_part in pose_parts:
        part = remaining.pop(0) if remaining else Part("", 0)
        # A rotation can be relative to a rotation of any form, plain numbers to plain numbers.
        same_kind = bool(part.form) == bool(pose_part.form)
        if not same_kind or (not part.form and part.size < pose_part.size):
            raise UserError(
                f"relative={relative!r}: the action must begin with the parts of {relative}, "
                f"but part {len(pairs)} of {relative} is {pose_part} and that of the action is "
                f"{part} (see layouts).",
                argument="relative",
            )
        if not part.form and part.size > pose_part.size:
            # Plain numbers beyond the pose's, such as a gripper's, are a part of their own.
            remaining.insert(0, Part("", part.size - pose_part.size))
            part = pose_part
        pairs.append((part, pose_part))
    return pairs + [(part, None) for part in remaining]


def map_parts(
    function: Callable[[Part, Part | None, AnyArray, AnyArray | None], AnyArray],
    pairs: list[Pair],
    sizes: list[int],
    x: AnyArray,
    pose: AnyArray | None,
) -> AnyArray:
    """function(part, pose part, numbers of x, numbers of pose) of all pairs, concatenated.

    sizes: how many numbers of x each part has.
    """
    # Where the next part begins, in x and in the pose.
    start = 0
    pose_start = 0
    results = []
    for (part, pose_part), size in zip(pairs, sizes):
        pose_size = pose_part.size if pose_part else 0
        pose_numbers = None
        if pose is not None:
            # With an axis for the steps of the chunk, which share the pose.
            pose_numbers = pose[..., None, pose_start : pose_start + pose_size]
        results.append(function(part, pose_part, x[..., start : start + size], pose_numbers))
        start += size
        pose_start += pose_size
    return (np if isinstance(x, np.ndarray) else jnp).concatenate(results, -1)


def encode_part(part: Part, pose_part: Part | None, x: AnyArray, pose: AnyArray | None) -> AnyArray:
    """One part as the network sees it, by (1) or (2) if it is relative to a pose."""
    if not part.form:
        return x - pose if pose_part else x
    matrix = rotations.FORMS[part.form].to_matrix(x)
    if pose_part:
        pose_matrix = rotations.FORMS[pose_part.form].to_matrix(pose)
        matrix = pose_matrix.swapaxes(-1, -2) @ matrix
    return LEARNED.from_matrix(matrix)


def decode_part(part: Part, pose_part: Part | None, x: AnyArray, pose: AnyArray | None) -> AnyArray:
    """The inverse of `encode_part`."""
    if not part.form:
        return x + pose if pose_part else x
    matrix = LEARNED.to_matrix(x)
    if pose_part:
        matrix = rotations.FORMS[pose_part.form].to_matrix(pose) @ matrix
    return rotations.FORMS[part.form].from_matrix(matrix)
