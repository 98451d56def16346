"""The list of all keys, for --help and for docs/config.md.

python -m dpjax.config.page > docs/config.md
"""

from collections.abc import Mapping
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


def terminal(config: Mapping[str, Any]) -> str:
    """The keys in aligned columns: key, its value in `config`, allowed values, unit and meaning."""
    values = keys.flatten(config)
    table = dict(keys.walk(defaults.KEYS))
    rows = [
        (f"{path}", _value(values, path, key), keys.describe_range(key.range), _meaning(key))
        for path, key in table.items()
        if path.partition(".")[0] != "denoiser" or path in values
    ]
    # Keys of open sections, and those of another network than the default one.
    others = [
        (path, repr(value), "", "")
        for path, value in values.items()
        if path not in table and not path.startswith(defaults.OPEN_TEXTS + ("cameras",))
    ]
    # Columns as wide as their contents, but for a few very long ones.
    widths = [max(len(row[column]) for row in [*rows, *others]) for column in range(2)]
    widths = [min(widths[0], 28), min(widths[1], 24), 24]
    line = "  {:{}}  {:{}}  {:{}}  ".format
    room = max(shutil.get_terminal_size((130, 24)).columns - sum(widths) - 8, 40)
    # The meaning is wrapped to the terminal's width, indented to its column.
    lines = []
    for *columns, meaning in [*rows, *others]:
        start = line(*(part for pair in zip(columns, widths) for part in pair))
        first, *more = textwrap.wrap(meaning, room) or [""]
        lines.append((start + first).rstrip())
        lines += [" " * (sum(widths) + 8) + text for text in more]
    return "\n".join(lines)


def _value(values: Mapping[str, Any], path: str, key: keys.Key) -> str:
    """The value of a key as Python, tuples as tuples; of an open section all that it holds."""
    if isinstance(key.default, Mapping):
        inside = {p[len(path) + 1 :]: x for p, x in values.items() if p.startswith(f"{path}.")}
        return repr(inside)
    value = values[path]
    return repr(tuple(value) if isinstance(value, list) else value)


def _meaning(key: keys.Key) -> str:
    """ "[unit] doc"."""
    return f"[{key.unit}] {key.doc}" if key.unit else key.doc


def markdown() -> str:
    """docs/config.md: a table per section, keys without a section first."""
    sections = {"": {name: x for name, x in defaults.KEYS.items() if isinstance(x, keys.Key)}}
    sections |= {name: x for name, x in defaults.KEYS.items() if not isinstance(x, keys.Key)}
    lines = [HEAD]
    for section, table in sections.items():
        lines += [f"## {section or 'Keys without a section'}", ""]
        lines += ["| key | default | values | unit | meaning |", "|---|---|---|---|---|"]
        for path, key in keys.walk(table, f"{section}." if section else ""):
            cells = (f"`{path}`", f"`{key.default!r}`", keys.describe_range(key.range))
            cells = (*cells, key.unit, key.doc)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(), end="")
