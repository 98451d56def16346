"""One HTML file that shows a run: numbers, curves, episodes, a film.

What a page is made of is in `webpage`; here is what this one says.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
import numpy as np

from dpjax.evaluation import html
from dpjax.evaluation.html import COLORS, canvas, png

Curve = tuple[np.ndarray, np.ndarray]  # x [n], y [n]


def write_report(
    path: str | Path,
    *,
    title: str,
    summary: str | Sequence[str],
    table: Sequence[Mapping[str, Any]] = (),
    scores: Mapping[str, Mapping[str, Any]] | None = None,
    curves: Mapping[str, Curve] | None = None,
    coverages: Sequence[float] = (),
    threshold: float = 0.95,
    video: str | Path | bytes | None = None,
    stills: Sequence[tuple[str, bytes]] = (),
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Writes the page; what is not given has no part in it.

    summary: a line or lines under the title. table: rows, all of the same columns.
    scores: {label: evaluation.scores.summary(...)}. curves: {name: (x, y)} over steps.
    coverages: the largest progress [E] of each episode; threshold: where success begins.
    video: an mp4, its path or bytes. stills: (caption, png). facts: machine, versions, …
    """
    lines = [summary] if isinstance(summary, str) else summary
    parts = [f'<p class="summary">{html.text(line)}</p>' for line in lines]
    if video is not None:
        data = video if isinstance(video, bytes) else Path(video).read_bytes()
        parts += [html.heading("Episodes"), _film(data)]
    if scores or len(coverages):
        parts += [html.heading("Results"), _results(scores or {}, coverages, threshold)]
    if table:
        parts.append(html.table(table))
    if curves:
        parts.append(html.heading("Training"))
        parts.append(html.picture("Loss over steps", curves_plot(curves)))
    if stills:
        parts.append(html.heading("A closer look"))
        parts += [html.picture(caption, png, kind="still") for caption, png in stills]
    if facts:
        parts += [html.heading("Made with"), html.facts(facts)]
    html.write(path, title, parts)


def scores_plot(scores: Mapping[str, Mapping[str, Any]]) -> bytes:
    """A dot and a 95 % bar for the score and the success rate of each label; png."""
    figure, axes = canvas(4.6, 1.3 + 0.62 * len(scores))
    for i, numbers in enumerate(scores.values()):
        for name, color, shift in (("score", COLORS[0], -0.15), ("success", COLORS[1], 0.15)):
            if numbers[name] is None:
                continue
            y, (low, high) = i + shift, numbers[f"{name}_interval"]
            axes.plot([low, high], [y, y], color=color, lw=5, alpha=0.3, solid_capstyle="butt")
            axes.plot(numbers[name], y, "o", color=color, ms=8, label=None if i else name)
            note = f"{numbers[name]:.2f}"
            axes.annotate(note, (numbers[name], y), (0, 7), textcoords="offset points",
                          ha="center", fontsize=9, color=color)  # fmt: skip
    axes.set(xlim=(-0.07, 1.07), ylim=(len(scores) - 0.4, -0.6))
    axes.set_yticks(range(len(scores)), list(scores))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return png(figure)


def coverage_plot(coverages: Sequence[float], threshold: float) -> bytes:
    """One bar an episode, best first; green beyond the threshold; png."""
    figure, axes = canvas(4.6, 3.0)
    best = np.sort(np.asarray(coverages, np.float64))[::-1]
    passed = int((best > threshold).sum())
    colors = [COLORS[2]] * passed + ["#94a3b8"] * (len(best) - passed)
    axes.bar(np.arange(1, len(best) + 1), best, width=0.85, color=colors)
    axes.axhline(threshold, color="#334155", lw=1, ls="--")
    note = f"{threshold:g}: {passed} of {len(best)}"
    axes.annotate(note, (1, threshold), (0, 3), xycoords=("axes fraction", "data"),
                  textcoords="offset points", ha="right", fontsize=9)  # fmt: skip
    axes.set(xlabel="episode", ylim=(0, 1.08), xlim=(0.2, len(best) + 0.8))
    return png(figure)


def curves_plot(curves: Mapping[str, Curve]) -> bytes:
    """Losses over steps, log y where all are positive; long ones smoothed over their trace."""
    figure, axes = canvas(8.4, 3.2)
    positive = True
    for (name, (x, y)), color in zip(curves.items(), COLORS * len(curves)):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        positive = positive and bool((y[np.isfinite(y)] > 0).all())
        width = len(y) // 100
        if width > 1:
            axes.plot(x, y, color=color, lw=0.7, alpha=0.25)
            kernel = np.ones(width) / width
            x, y = np.convolve(x, kernel, "valid"), np.convolve(y, kernel, "valid")
        axes.plot(x, y, color=color, lw=1.8, label=name, marker="o" if len(y) < 30 else None,
                  ms=4)  # fmt: skip
    axes.set_yscale("log" if positive else "linear")
    axes.set(xlabel="step", ylabel="loss")
    axes.legend(frameon=False)
    return png(figure)


def chunks_still(
    frame: np.ndarray,
    panels: Sequence[tuple[str, np.ndarray]],
    *,
    extent: float = 512.0,
) -> bytes:
    """Sampled plans over the scene, one panel a noise level, dark (now) to bright; png.

    frame: uint8 [H, W, 3] of a scene `extent` units wide. panels: (label, chunks [B, Tp, 2]).
    """
    columns = min(len(panels), 6)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(2.2 * columns, 2.45 * lines), layout="constrained")
    grid = np.atleast_1d(figure.subplots(lines, columns)).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (label, chunks) in zip(grid, panels):
        axes.imshow(frame, extent=(0, extent, extent, 0), alpha=0.55)
        chunks = np.asarray(chunks, np.float64)
        pieces = np.stack([chunks[:, :-1], chunks[:, 1:]], axis=2).reshape(-1, 2, 2)
        time = np.tile(np.linspace(0, 1, chunks.shape[1] - 1), len(chunks))
        style = dict(cmap="plasma", linewidths=1.1, alpha=max(0.25, 0.9 - len(chunks) / 100))
        axes.add_collection(LineCollection(pieces, array=time, **style))
        axes.set(xlim=(0, extent), ylim=(extent, 0))
        axes.set_title(label, fontsize=10)
    return png(figure)


def _results(scores, coverages, threshold):
    plots = []
    if scores:
        plots.append(html.picture("Both metrics, with 95 % intervals", scores_plot(scores)))
    if len(coverages):
        caption = "Largest coverage of each episode, sorted"
        plots.append(html.picture(caption, coverage_plot(coverages, threshold)))
    return f'<div class="pair">{"".join(plots)}</div>'


def _film(mp4):
    source = f"data:video/mp4;base64,{base64.b64encode(mp4).decode()}"
    how = "controls loop muted autoplay playsinline"
    return f'<figure><video {how} src="{source}"></video></figure>'
