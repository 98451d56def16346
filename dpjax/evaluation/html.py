"""The parts of a report's page: one HTML file that contains its pictures and films.

The page has no scripts, fonts or links to other files, so that it can be mailed and still opens
in ten years. It follows the reader's light or dark mode. Nothing here needs an optional library.
"""

import base64
from collections.abc import Mapping, Sequence
import html
from pathlib import Path
from typing import Any

# The page with places for {title} and {body}. All other braces are doubled, since `write` calls
# `format`. The fonts are the reader's own. Dark mode inverts plots, which are black on white, and
# rotates their hues by half a turn, which brings the colours back.
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1c2430; --soft: #667085; --page: #f6f7f9;
  --card: #fff; --line: #e4e7ec; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e6e9ef; --soft: #98a2b3; --page: #14171c; --card: #1a1a1a;
    --line: #333a45; }}
  .plot {{ filter: invert(.9) hue-rotate(180deg); }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; color: var(--ink);
  background: var(--page); font: 16px/1.5 system-ui, -apple-system, sans-serif; }}
h1 {{ margin: 0 0 .5rem; font-size: 1.6rem; line-height: 1.2; }}
h2 {{ margin: 2rem 0 .6rem; font-size: 1.05rem; }}
.summary {{ margin: .2rem 0; font-size: 1.1rem; font-variant-numeric: tabular-nums; }}
figure, .table {{ margin: 0 0 1rem; padding: .75rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; }}
figcaption {{ margin: .2rem .2rem .6rem; color: var(--soft); font-size: .9rem; }}
img, video {{ display: block; width: 100%; height: auto; border-radius: 6px; }}
.pair {{ display: grid; gap: 0 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }}
th, td {{ padding: .35rem .7rem .35rem .2rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); white-space: nowrap; }}
tr:last-child td {{ border-bottom: 0; }}
th {{ color: var(--soft); font-weight: 600; }}
.finding {{ margin: 0 0 .6rem; padding: .6rem .8rem; background: var(--card);
  border: 1px solid var(--line); border-left: 5px solid #64748b; border-radius: 8px;
  overflow-wrap: anywhere; }}
.finding.error {{ border-left-color: #be123c; }}
.finding.warning {{ border-left-color: #e8590c; }}
.finding p {{ margin: 0; }}
.finding .kind {{ color: var(--soft); font-size: .8rem; }}
.properties td:last-child {{ white-space: normal; overflow-wrap: anywhere; }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def write(path: str | Path, title: str, parts: Sequence[str]) -> None:
    """Writes a page: the title, and below it the parts, which are HTML."""
    # UTF-8, as the page declares, whatever the machine's default is.
    page = PAGE.format(title=text(title), body="\n".join(parts))
    Path(path).write_text(page, encoding="utf-8")


def text(value: Any) -> str:
    """A value as HTML: escaped, floats with four significant digits."""
    # An int keeps all digits, such as a number of steps.
    return html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def heading(words: str) -> str:
    """A heading within the page."""
    return f"<h2>{text(words)}</h2>"


def picture(caption: str, png: bytes, kind: str = "plot") -> str:
    """A png below its caption. kind: dark mode inverts a "plot" and leaves a "still" as it is."""
    # A data URI puts the picture into the page itself.
    data = base64.b64encode(png).decode()
    words = text(caption)  # also what a screen reader reads
    image = f'<img class="{kind}" alt="{words}" src="data:image/png;base64,{data}">'
    return f"<figure><figcaption>{words}</figcaption>{image}</figure>"


def film(mp4: bytes) -> str:
    """A film that starts by itself and repeats."""
    source = f"data:video/mp4;base64,{base64.b64encode(mp4).decode()}"
    # Browsers start a film by themselves only if it is muted, and phones only if it plays inline.
    options = "controls loop muted autoplay playsinline"
    return f'<figure><video {options} src="{source}"></video></figure>'


def side_by_side(parts: Sequence[str]) -> str:
    """Parts beside each other where the window is wide enough, otherwise below each other."""
    return f'<div class="pair">{"".join(parts)}</div>'


def table(entries: Sequence[Mapping[str, Any]]) -> str:
    """A table with one line per entry; the keys of the first entry are the columns."""
    # A key that an entry lacks gives an empty cell.
    names = list(entries[0])
    head = "".join(f"<th>{text(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{text(entry.get(name, ''))}</td>" for name in names) + "</tr>"
        for entry in entries
    )
    return f'<div class="table"><table><tr>{head}</tr>{body}</table></div>'


def properties(items: Mapping[str, Any]) -> str:
    """Names and values, one line each."""
    body = "".join(f"<tr><th>{text(name)}</th><td>{text(x)}</td></tr>" for name, x in items.items())
    return f'<div class="table properties"><table>{body}</table></div>'
