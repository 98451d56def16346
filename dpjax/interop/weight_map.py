"""Networks of other libraries as tables of pieces, read in both directions.

A piece says that a part of one of our leaves is a part of one of their tensors, its axes
in another order. A network is a tuple of pieces; that every number of ours and every number
of theirs is in exactly one of them is checked, and what is missing, left over or of another
shape is listed by name.
"""

from collections.abc import Iterable, Mapping
import math
from typing import Any, NamedTuple

import numpy as np

from dpjax.core.errors import UserError

Path = tuple[str, ...]
Shapes = dict[Path, tuple[int, ...]]  # {leaf: shape} of our params
SHOWN = 5  # names of a kind in an error


class Piece(NamedTuple):
    """ours[path][to] = theirs[name][of], its axes transposed.

    axes: theirs in the order of ours; () for none to move.
    to, of: an index an axis: a slice with both ends, an int, or a range as an int array; ()
        for all there is.
    """

    path: Path
    name: str
    axes: tuple[int, ...] = ()
    to: tuple = ()
    of: tuple = ()


def linear(path: Path, name: str, **parts) -> tuple[Piece, Piece]:
    """A linear layer: [out, in] there, [in, out] here; and its bias."""
    return Piece((*path, "kernel"), f"{name}.weight", (1, 0), **parts), Piece(
        (*path, "bias"), f"{name}.bias"
    )


def norm(path: Path, name: str, scale: str = "scale", bias: str = "bias") -> tuple[Piece, Piece]:
    """A scale and a bias a channel."""
    return Piece((*path, scale), f"{name}.weight"), Piece((*path, bias), f"{name}.bias")


def their_shapes(pieces: Iterable[Piece], ours: Shapes) -> dict[str, tuple[int, ...]]:
    """{name: shape} of all their tensors, from ours and the pieces."""
    shapes: dict[str, list[int]] = {}
    for piece in pieces:
        part = list(_shape_of(ours[piece.path], piece.to))
        if piece.axes:
            part = [part[piece.axes.index(axis)] for axis in range(len(part))]
        index = piece.of or (slice(None),) * len(part)
        ends = []
        for at in (*index, *[slice(None)] * len(part)):
            if isinstance(at, int):
                ends.append(at + 1)
            elif part:
                size = part.pop(0)
                ends.append(_end(at, size))
        known = shapes.setdefault(piece.name, [0] * len(ends))
        shapes[piece.name] = [max(pair) for pair in zip(known, ends)]
    return {name: tuple(shape) for name, shape in shapes.items()}


def _end(at, size: int) -> int:
    """Where an index of `size` numbers ends."""
    if isinstance(at, slice):
        return size if at.stop is None else at.stop
    return int(at.max()) + 1


def _shape_of(shape, index) -> tuple[int, ...]:
    return np.broadcast_to(np.False_, shape)[index].shape if index else tuple(shape)


def check(source: str, pieces: Iterable[Piece], ours: Shapes, there: Mapping) -> None:
    """Refuses tensors {name: array} that are not just those of the pieces, by name."""
    expected = their_shapes(pieces, ours)
    wrong = [
        f"{name}: expected {list(shape)}, got {list(there[name].shape)}"
        for name, shape in expected.items()
        if name in there and there[name].shape != shape
    ]
    lists = {
        "missing": sorted(set(expected) - set(there)),
        "left over": sorted(set(there) - set(expected)),
        "of another shape": wrong,
    }
    said = [f"{len(names)} {what} ({first(names)})" for what, names in lists.items() if names]
    if said:
        raise UserError(f"{source}: these tensors are not of that network: {'; '.join(said)}.")


def first(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def assemble(source: str, pieces: Iterable[Piece], ours: Shapes, there: Mapping) -> dict[str, Any]:
    """Our params, nested dicts, out of their tensors {name: float32 array}."""
    pieces = tuple(pieces)
    check(source, pieces, ours, there)
    leaves = {path: np.zeros(shape, np.float32) for path, shape in ours.items()}
    filled = dict.fromkeys(ours, 0)
    for piece in pieces:
        part = there[piece.name][piece.of]
        part = part.transpose(piece.axes) if piece.axes else part
        leaves[piece.path][piece.to] = part
        filled[piece.path] += part.size
    empty = [path for path, count in filled.items() if count != math.prod(ours[path])]
    assert not empty, f"pieces leave out a part of {empty}"
    return nest(leaves)


def take_apart(pieces: Iterable[Piece], leaves: Mapping[Path, np.ndarray]) -> dict[str, np.ndarray]:
    """Their tensors {name: float32 array} out of our leaves."""
    pieces = tuple(pieces)
    shapes = their_shapes(pieces, {path: leaf.shape for path, leaf in leaves.items()})
    there = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for piece in pieces:
        part = np.asarray(leaves[piece.path])[piece.to]
        there[piece.name][piece.of] = part.transpose(np.argsort(piece.axes)) if piece.axes else part
    given = {path for path, leaf in leaves.items() if np.size(leaf)}
    left = sorted(given - {piece.path for piece in pieces})
    assert not left, f"no piece for {left}"
    return there


def nest(leaves: Mapping[Path, Any]) -> dict:
    """{path: leaf} as nested dicts."""
    tree: dict = {}
    for path, leaf in leaves.items():
        part = tree
        for key in path[:-1]:
            part = part.setdefault(key, {})
        part[path[-1]] = leaf
    return tree


def flatten(tree: Mapping, path: Path = ()) -> dict[Path, Any]:
    """Nested dicts as {path: leaf}."""
    if not isinstance(tree, Mapping):
        return {path: tree}
    parts = (flatten(part, (*path, name)) for name, part in tree.items())
    return {key: leaf for part in parts for key, leaf in part.items()}
