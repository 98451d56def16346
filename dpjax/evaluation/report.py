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
    """Writes the page, with one part per argument that is given.

    summary: one line or several below the title.
    table: entries with the same keys, one line each.
    scores: {label: what `evaluation.scores.summarize` returned}.
    curves: {name: (x [n], y [n])}, losses over training steps.
    coverages: the largest progress of each episode, [E].
    threshold: an episode with a coverage above it is a success.
    video: an mp4, as its path or its bytes.
    stills: pictures as (caption, png).
    provenance: what the numbers were measured with: machine, versions, ….
    """
    # The order is that of a reader's questions. What is the result?
    lines = [summary] if isinstance(summary, str) else summary
    parts = [f'<p class="summary">{html.text(line)}</p>' for line in lines]
    # What does it look like?
    if video is not None:
        mp4 = video if isinstance(video, bytes) else Path(video).read_bytes()
        parts += [html.heading("Episodes"), html.film(mp4)]
    # How sure are the numbers, and how do episodes differ?
    if scores or len(coverages):
        parts += [html.heading("Results"), _results(scores or {}, coverages, threshold)]
    if table:
        parts.append(html.table(table))
    # How did the training go?
    if curves:
        parts.append(html.heading("Training"))
        parts.append(html.picture("Loss over steps", plots.curves(curves)))
    # What does the policy do inside? Stills keep their colours in dark mode.
    if stills:
        parts.append(html.heading("A closer look"))
        parts += [html.picture(caption, png, kind="still") for caption, png in stills]
    # How can it be reproduced?
    if provenance:
        parts += [html.heading("Made with"), html.properties(provenance)]
    html.write(path, title, parts)


def _results(
    scores: Mapping[str, Mapping[str, Any]], coverages: Sequence[float], threshold: float
) -> str:
    """The plots of the scores and the coverages, side by side; either may be missing."""
    pictures = []
    if scores:
        caption = "Both metrics, with 95 % intervals"
        pictures.append(html.picture(caption, plots.scores(scores)))
    if len(coverages):
        caption = "Largest coverage of each episode, sorted"
        pictures.append(html.picture(caption, plots.coverages(coverages, threshold)))
    return html.side_by_side(pictures)
