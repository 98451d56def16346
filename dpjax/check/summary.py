"""What each key is: its numbers, for the terminal a line a key, for the page a line a dim."""

from collections.abc import Mapping, Sequence

import numpy as np

from dpjax.check.context import Case, counted, mode, network, numbers_learned


def lines(case: Case) -> list[str]:
    """What the data are in a line or two, and what of them was looked at."""
    train, val = case.train, case.val
    parts = [
        f"{train.source}: {counted(len(train.ends), 'episode')} to train on, {len(val.ends)} "
        f"held out; {counted(train.ends[-1], 'step')}, {train.lengths.min()} to "
        f"{train.lengths.max()} an episode; "
        f"{counted(case.windows, 'window')}, {case.padding:.1%} of their steps copies of an edge"
    ]
    if case.frames:
        counts = ", ".join(f"{len(rows)} of {name}" for name, (rows, _) in case.frames.items())
        parts.append(f"frames looked at, and as many next ones: {counts}")
    return parts


def keys(case: Case) -> list[dict[str, str]]:
    """A row a key of the training data; least, greatest and mean over all of its dims."""
    rows = []
    for key, x in case.numbers.items():
        counts = distinct(x)
        few, many = f"{counts.min():,}", f"{counts.max():,}"
        values = few if few == many else f"{few} to {many} a dim"
        rows.append(_row(key, x, x) | {"distinct": values})
    for key, (_, pixels) in case.frames.items():
        rows.append(_row(key, case.train.columns[key], pixels) | {"distinct": "images"})
    return rows


def dims(case: Case) -> list[dict[str, str]]:
    """A row a dim of the training data in the network's spaces, with what it gets of it."""
    rows = []
    for key, x in numbers_learned(case).items():
        counts = distinct(x)
        ends = network(case, key, np.stack([x.min(0), x.max(0)]))
        for d in range(x.shape[1]):
            row = _row(f"{key}[{d}]", x[:, d], x[:, d])
            row |= {"distinct": f"{counts[d]:,}", "normalized": mode(case, key)}
            row |= {"to": f"{ends[0, d]:.3g} … {ends[1, d]:.3g}"}
            del row["shape"], row["dtype"]  # a row a key says them
            rows.append(row)
    return rows


def _row(name, column, x) -> dict[str, str]:
    return {
        "key": name,
        "shape": str(list(column.shape[1:])),
        "dtype": str(column.dtype),
        "least": f"{x.min():.4g}",
        "greatest": f"{x.max():.4g}",
        "mean": f"{x.mean(dtype=np.float64):.4g}",
    }


def distinct(x: np.ndarray) -> np.ndarray:
    """[D]: how many different numbers each dim of a column [N, D] has."""
    ordered = np.sort(x, axis=0)
    return 1 + (ordered[1:] != ordered[:-1]).sum(0)


def aligned(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Rows as text, a header first: the columns below each other."""
    table = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table)]
    left = 3  # names, shapes and types; numbers stand at the right
    cells = lambda row: [
        text.ljust(width) if i < left else text.rjust(width)
        for i, (text, width) in enumerate(zip(row, widths))
    ]
    return ["  ".join(cells(row)).rstrip() for row in table]
