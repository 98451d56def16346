"""Tables of the data: one row per key for the terminal, one row per dim for the page."""

from collections.abc import Mapping, Sequence

import numpy as np

from dpjax.check.context import Context, count, normalization, normalize
from dpjax.check.looks import LOOKS


def overview(context: Context) -> list[str]:
    """The size of the data in one line, and the number of examined frames in another."""
    train = context.train
    lines = [
        f"{train.source}: {count(len(train.ends), 'episode')} to train on, "
        f"{len(context.val.ends)} held out; {count(train.ends[-1], 'step')}, "
        f"{train.lengths.min()} to {train.lengths.max()} per episode; "
        f"{count(context.num_windows, 'window')}, {context.padded_share:.1%} of their steps "
        "copies of an episode's first or last step"
    ]
    # Of the images only a sample is examined, so its size is reported.
    if context.frames:
        frames = [f"{len(steps)} of {name}" for name, (steps, _) in context.frames.items()]
        lines.append(f"frames looked at, each with the next one: {', '.join(frames)}")
    if context.looks:
        looks = [f"{x.steps.size:,} of {name}" for name, x in context.looks.items()]
        lines.append(f"frames decoded, {LOOKS} per episode: {', '.join(looks)}")
    return lines


def key_table(context: Context) -> list[dict[str, str]]:
    """One row per key of the training data, with statistics over all of its dims."""
    rows = []
    # Numbers: as recorded, all steps.
    for key, x in context.numbers.items():
        counts = num_distinct(x)
        fewest = f"{counts.min():,}"
        most = f"{counts.max():,}"
        distinct = fewest if fewest == most else f"{fewest} to {most} per dim"
        rows.append(_describe(key, x, x) | {"distinct": distinct})
    for key, (_, pixels) in context.frames.items():
        # Images: shape and type of the column, statistics of the sampled frames.
        row = _describe(key, context.train.columns[key], pixels)
        rows.append(row | {"distinct": "images"})
    return rows


def dim_table(context: Context) -> list[dict[str, str]]:
    """One row per dim of the policy's representation, with its normalized range."""
    rows = []
    for key, x in context.represented_numbers.items():
        counts = num_distinct(x)
        # Normalization is monotonic, so it maps a dim's minimum and maximum to the new ones.
        limits = normalize(context, key, np.stack([x.min(0), x.max(0)]))  # [2, D]
        for d in range(x.shape[1]):
            row = _describe(f"{key}[{d}]", x[:, d], x[:, d])
            # Shape and type are in the row of the key.
            del row["shape"]
            del row["dtype"]
            row["distinct"] = f"{counts[d]:,}"
            row["normalized by"] = normalization(context, key)
            row["to"] = f"{limits[0, d]:.3g} … {limits[1, d]:.3g}"
            rows.append(row)
    return rows


def _describe(name, column, x) -> dict[str, str]:
    """The row of a column. x: the values of which the statistics are computed."""
    # The mean is summed in float64: float32 loses digits over many steps.
    return {
        "key": name,
        "shape": str(list(column.shape[1:])),
        "dtype": str(column.dtype),
        "min": f"{x.min():.4g}",
        "max": f"{x.max():.4g}",
        "mean": f"{x.mean(dtype=np.float64):.4g}",
    }


def num_distinct(x: np.ndarray) -> np.ndarray:
    """[D]: the number of distinct values in each dim of a column [N, D]."""
    # Sorted, equal values are adjacent, so every change between neighbours is a new value.
    ordered = np.sort(x, axis=0)
    return 1 + (ordered[1:] != ordered[:-1]).sum(0)


def align(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Formats a table as lines of text with a header and aligned columns."""
    # The keys of a row are the names of the columns.
    table = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table)]
    num_left = 3  # key, shape and dtype are aligned left, numbers right
    lines = []
    for row in table:
        cells = [
            text.ljust(width) if i < num_left else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
