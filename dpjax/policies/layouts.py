"""Layouts: the parts of a column, and how the network sees each of them.

A layout is a text that lists the parts of a column in order. An integer n is a part of n plain
numbers, and a name in `rotations.FORMS` is a rotation. For example, "3 axis_angle 1" describes a
position, a rotation and a gripper. The network sees every rotation in the continuous 6-D form of
`core.rotations`.

A part a of the action can be expressed relative to the same part s of a pose:

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

AnyArray = Any  # np.ndarray or jax.Array; the functions below return the same kind


class Part(NamedTuple):
    """A part of a column: a rotation, or adjacent plain numbers.

    form: a name in `rotations.FORMS`, or "" for plain numbers.
    size: how many numbers the part has in the data.
    """

    form: str
    size: int

    @property
    def learned_size(self) -> int:
        """How many numbers the part has for the network."""
        return LEARNED.size if self.form else self.size

    def __str__(self) -> str:
        # As it is written in a layout.
        return self.form or str(self.size)


# A part of the action, and the part of the pose that it is relative to; None if it is absolute.
Pair = tuple[Part, Part | None]


def parse(key: str, text: str) -> tuple[Part, ...]:
    """The parts that a layout describes.

    key: the name of the column, for the error message.

    Raises UserError if the text is not a layout.
    """
    argument = f"layouts.{key}"
    parts = []
    for word in str(text).split():
        if word.isdigit() and int(word):  # a part of 0 numbers would be a mistake
            parts.append(Part("", int(word)))
        elif word in rotations.FORMS:
            parts.append(Part(word, rotations.FORMS[word].size))
        else:
            raise UserError(
                f"{argument}={text!r}: {word!r} is neither a number of plain dims nor a "
                f"rotation; {choices(word, rotations.FORMS)}.",
                argument=argument,
            )
    # An empty text is refused: a column without a layout is left out of the config.
    if not parts:
        raise UserError(
            f"{argument}='' names no parts: give some, such as '3 axis_angle 1'.",
            argument=argument,
        )
    return tuple(parts)


def pair(action_parts: tuple[Part, ...], pose_parts: tuple[Part, ...], relative: str) -> list[Pair]:
    """Pairs each part of the action with the part of the pose that it is relative to.

    The action must begin with the parts of the pose. Its remaining parts stay absolute.

    relative: the name of the pose, for the error message.

    Raises UserError if the action does not begin with the parts of the pose.
    """
    # The parts of the action that are not paired yet, the next one first.
    remaining = list(action_parts)
    pairs: list[Pair] = []
    for pose_part in pose_parts:
        # An action with too few parts fails below, as a part of size 0.
        part = remaining.pop(0) if remaining else Part("", 0)
        # A rotation can be relative to a rotation of any form, but not to plain numbers.
        same_kind = bool(part.form) == bool(pose_part.form)
        if not same_kind or (not part.form and part.size < pose_part.size):
            raise UserError(
                f"relative={relative!r}: the action must begin with the parts of {relative}, "
                f"but part {len(pairs)} of {relative} is {pose_part} and that of the action is "
                f"{part} (see layouts).",
                argument="relative",
            )
        if not part.form and part.size > pose_part.size:
            # "4" relative to "3": three numbers are relative, and the fourth, such as a gripper,
            # becomes the next part.
            remaining.insert(0, Part("", part.size - pose_part.size))
            part = pose_part
        pairs.append((part, pose_part))
    # What the pose does not have stays absolute.
    return pairs + [(part, None) for part in remaining]


def map_parts(
    function: Callable[[Part, Part | None, AnyArray, AnyArray | None], AnyArray],
    pairs: list[Pair],
    sizes: list[int],
    x: AnyArray,
    pose: AnyArray | None,
) -> AnyArray:
    """Applies a function to each part of x [..., D], and concatenates the results [..., D'].

    function: `(part, pose_part, numbers of the part, numbers of the pose_part) -> numbers`.
    sizes: how many numbers each part has in x.
    pose: [..., D_s] for x [..., T, D], one pose for all T steps; None if no part is relative.
    """
    # Where the next part begins, in x and in the pose.
    start = 0
    pose_start = 0
    results = []
    for (part, pose_part), size in zip(pairs, sizes):
        pose_size = pose_part.size if pose_part else 0
        pose_numbers = None
        if pose is not None:
            # [..., 1, size]: the steps of a chunk share the pose.
            pose_numbers = pose[..., None, pose_start : pose_start + pose_size]
        results.append(function(part, pose_part, x[..., start : start + size], pose_numbers))
        start += size
        pose_start += pose_size
    return (np if isinstance(x, np.ndarray) else jnp).concatenate(results, -1)


def encode_part(part: Part, pose_part: Part | None, x: AnyArray, pose: AnyArray | None) -> AnyArray:
    """One part as the network sees it, by (1) or (2) if it is relative to a pose."""
    if not part.form:
        return x - pose if pose_part else x  # (1)
    matrix = rotations.FORMS[part.form].to_matrix(x)
    if pose_part:
        pose_matrix = rotations.FORMS[pose_part.form].to_matrix(pose)
        matrix = pose_matrix.swapaxes(-1, -2) @ matrix  # (2)
    return LEARNED.from_matrix(matrix)


def decode_part(part: Part, pose_part: Part | None, x: AnyArray, pose: AnyArray | None) -> AnyArray:
    """The inverse of `encode_part`."""
    if not part.form:
        return x + pose if pose_part else x  # (1), solved for a
    matrix = LEARNED.to_matrix(x)
    if pose_part:
        # (2), solved for R_a.
        matrix = rotations.FORMS[pose_part.form].to_matrix(pose) @ matrix
    return rotations.FORMS[part.form].from_matrix(matrix)
