"""The report of an evaluation: one HTML file with numbers, curves, a film and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpjax.evaluation import html, plots


def write_report(
    path: str | Path,
    *,
    title: str,
    summary: str | Sequence[str],
    table: Sequence[Mapping[str, Any]] = (),
    scores: Mapping[str, Mapping[str, Any]] | None = None,
    curves: Mapping[str, plots.Curve] | None = None,
    coverages: Sequence[float] = (),
    threshold: float = 0.95,
    video: str | Path | bytes | None = None,
    stills: Sequence[tuple[str, bytes]] = (),
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Writes the page; it has a part for each argument that is given.

    summary: one line or several below the title.
    table: entries with the same keys, one line each.
    scores: {label: what `evaluation.scores.summarize` returned}.
    curves: {name: (x [n], y [n])}, losses over training steps.
    coverages: the largest progress [E] of each episode; threshold: success is beyond it.
    video: an mp4, as its path or its bytes.
    stills: pictures as (caption, png).
    provenance: what the numbers were measured with: machine, versions, ….
    """
    # From what one wants to know first to what one looks up: the result, what it looks like, its
    # numbers, how it came about, and what it was measured with.
    lines = [summary] if isinstance(summary, str) else summary
    parts = [f'<p class="summary">{html.text(line)}</p>' for line in lines]
    if video is not None:
        mp4 = video if isinstance(video, bytes) else Path(video).read_bytes()
        parts += [html.heading("Episodes"), html.film(mp4)]
    if scores or len(coverages):
        parts += [html.heading("Results"), _results(scores or {}, coverages, threshold)]
    if table:
        parts.append(html.table(table))
    if curves:
        parts.append(html.heading("Training"))
        parts.append(html.picture("Loss over steps", plots.curves(curves)))
    if stills:
        parts.append(html.heading("A closer look"))
        parts += [html.picture(caption, png, kind="still") for caption, png in stills]
    if provenance:
        parts += [html.heading("Made with"), html.properties(provenance)]
    html.write(path, title, parts)


def _results(
    scores: Mapping[str, Mapping[str, Any]], coverages: Sequence[float], threshold: float
) -> str:
    """The plots of the scores and of the coverages, as far as they are given."""
    pictures = []
    if scores:
        caption = "Both metrics, with 95 % intervals"
        pictures.append(html.picture(caption, plots.scores(scores)))
    if len(coverages):
        caption = "Largest coverage of each episode, sorted"
        pictures.append(html.picture(caption, plots.coverages(coverages, threshold)))
    return html.side_by_side(pictures)
