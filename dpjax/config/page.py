"""Prints the table of all keys, for --help and for docs/config.md.

python -m dpjax.config.page > docs/config.md
"""

from collections.abc import Mapping, Sequence
import itertools
import shutil
import textwrap
from typing import Any

from dpjax.config import defaults, keys

HEAD = """# Every key of a config

Written by `python -m dpjax.config.page > docs/config.md` from the table in
[`dpjax/config/defaults.py`](../dpjax/config/defaults.py). Set a key on the command line
(`--config.train.steps=5000`) or in a config file (`config.train.steps = 5_000`).
"To", "Tp" and "Ta" are the steps that are observed, predicted and executed; "S" is the number of
sampling steps, "K" the number of noise levels.
"""

# Characters of the columns of --help: key, value, allowed values, unit. The meaning gets the rest.
WIDTHS = (23, 19, 16, 12)
GAP = 2  # characters between two columns


def terminal(config: Mapping[str, Any]) -> str:
    """A text of aligned columns: key, its value in the config, allowed values, unit, meaning."""
    # 1. The keys of the table. With another network than the default one, the keys of the U-Net are
    # left out.
    values = keys.flatten(config)
    table = dict(keys.entries(defaults.KEYS))
    rows = [
        (path, _value(values, path, key), keys.describe_range(key.range), key.unit, key.doc)
        for path, key in table.items()
        if path.partition(".")[0] != "denoiser" or path in values
    ]
    # 2. The keys of another network, which the table does not have.
    rows += [
        (path, repr(value), "", "", "")
        for path, value in values.items()
        if path not in table and path.startswith("denoiser.")
    ]
    # 3. The text. The meaning gets the rest of the terminal's width, but at least 30 characters.
    room = shutil.get_terminal_size((130, 24)).columns - sum(WIDTHS) - GAP * len(WIDTHS)
    widths = (*WIDTHS, max(room, 30))
    return "\n".join(line for row in rows for line in _lines(row, widths))


def _lines(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """The lines of a row, whose cells are wrapped to their columns."""
    # A cell of a few lines beside a shorter one: the shorter one is filled with empty lines.
    wrapped = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths)]
    lines = itertools.zip_longest(*wrapped, fillvalue="")
    gap = " " * GAP
    return [
        gap.join(f"{part:{width}}" for part, width in zip(line, widths)).rstrip() for line in lines
    ]


def _value(values: Mapping[str, Any], path: str, key: keys.Key) -> str:
    """The value of a key as Python code."""
    # The value of an open section is the dict of its keys.
    if isinstance(key.default, Mapping):
        inside = {p[len(path) + 1 :]: x for p, x in values.items() if p.startswith(f"{path}.")}
        return repr(inside)
    # `flatten` made lists of tuples.
    value = values[path]
    return repr(tuple(value) if isinstance(value, list) else value)


def markdown() -> str:
    """The text of docs/config.md: a table of keys per section."""
    # Keys without a section come first.
    sections = {"": {name: x for name, x in defaults.KEYS.items() if isinstance(x, keys.Key)}}
    sections |= {name: x for name, x in defaults.KEYS.items() if not isinstance(x, keys.Key)}
    lines = [HEAD]
    for section, table in sections.items():
        lines += [f"## {section or 'Keys without a section'}", ""]
        lines += ["| key | default | values | unit | meaning |", "|---|---|---|---|---|"]
        for path, key in keys.entries(table, f"{section}." if section else ""):
            cells = (f"`{path}`", f"`{key.default!r}`", keys.describe_range(key.range))
            cells = (*cells, key.unit, key.doc)
            # In a Markdown table "|" separates cells, unless a backslash precedes it.
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(), end="")
