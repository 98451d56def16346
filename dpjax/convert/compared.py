"""Holds the headers of all episodes against each other, before anything is converted.

Formats with one array per key and episode (arrays.py, robomimic.py) read the headers, and this
module finds the keys that can be converted, and the episodes that lack them.
"""

from collections import Counter
from collections.abc import Callable, Mapping
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dpjax.convert.source import Feature

log = logging.getLogger("dpjax")


class Header(NamedTuple):
    """Shape and type of an array, from its header, or why it can't be read.

    problem: it is something else than numbers per step. damage: it is broken.
    """

    shape: tuple[int, ...] = ()
    dtype: np.dtype = np.dtype(np.float32)
    problem: str = ""
    damage: str = ""

    @property
    def length(self) -> int:
        """The number of steps; 0 for a broken array."""
        return self.shape[0] if self.shape else 0


# Where episode e has a key, for messages.
Label = Callable[[int, str], str]


class Compared(NamedTuple):
    """A key in all episodes; the fields are those of `Source`, for one key.

    feature: None if no episode has it as numbers per step; then problem or damage says why.
    """

    feature: Feature | None
    problem: str = ""
    damage: str = ""
    damaged_in: Mapping[int, str] = {}
    differs_in: Mapping[int, str] = {}


def numbers(shape: tuple[int, ...], dtype: np.dtype) -> Header:
    """The header of an intact array, with its problem if it isn't numbers per step."""
    if not shape:
        return Header(problem="expected an array [T, ...], got a single value, not one per step")
    if dtype.kind not in "fiub":
        return Header(problem=f"only numbers are converted, and it is {dtype}")
    return Header(shape, dtype)


def source_fields(
    path: Path, headers: Mapping[int, Mapping[str, Header]], count: int, label: Label
) -> dict[str, Any]:
    """The fields of a `Source` that follow from its headers: features, lengths, faults.

    path: the source, for messages. headers: {e: {key: Header}} of the episodes that have any.
    count: E, all episodes.
    """
    keys = dict.fromkeys(key for header in headers.values() for key in header)
    compared = {key: compare(path, key, headers, label) for key in keys}
    lengths = {
        key: [headers.get(e, {}).get(key, Header()).length for e in range(count)]
        for key, one in compared.items()
        if one.feature
    }
    return dict(
        features={key: one.feature for key, one in compared.items() if one.feature},
        lengths=next(iter(lengths.values()), [0] * count),
        problems={key: one.problem for key, one in compared.items() if one.problem},
        damage={key: one.damage for key, one in compared.items() if one.damage},
        key_lengths=lengths,
        damaged_in={key: one.damaged_in for key, one in compared.items()},
        differs_in={key: one.differs_in for key, one in compared.items()},
    )


def compare(
    path: Path, key: str, headers: Mapping[int, Mapping[str, Header]], label: Label
) -> Compared:
    """Holds a key of all episodes against each other; the arguments of `source_fields`."""
    # 1. Where it is broken, missing, or no array of numbers.
    here = {e: header[key] for e, header in headers.items() if key in header}
    damaged = {e: f"{label(e, key)}: {one.damage}" for e, one in here.items() if one.damage}
    differs = {e: f"{label(e, key)}: missing there" for e in headers if e not in here}
    differs |= {e: f"{label(e, key)}: {one.problem}" for e, one in here.items() if one.problem}
    intact = {e: one for e, one in here.items() if not (one.damage or one.problem)}
    if not intact:
        problem = next((differs[e] for e in here if e in differs), "")
        return Compared(None, problem, "" if problem else next(iter(damaged.values())))
    # 2. The shape of most; types of numbers are joined, since all are cast to float32.
    counts = Counter(one.shape[1:] for one in intact.values())
    shape = counts.most_common(1)[0][0]
    for e, one in intact.items():
        if one.shape[1:] != shape:
            got = list(one.shape[1:])
            differs[e] = f"{label(e, key)}: expected {list(shape)} per step, as in most, got {got}"
    types = dict.fromkeys(one.dtype for e, one in intact.items() if e not in differs)
    if len(types) > 1:
        names = " and ".join(map(str, types))
        log.warning(
            "%s: %s: of types %s in different episodes; all become float32", path, key, names
        )
    feature = Feature(shape, np.result_type(*types))
    return Compared(feature, damaged_in=damaged, differs_in=dict(sorted(differs.items())))
