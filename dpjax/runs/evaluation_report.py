"""The report of a run's evaluation: report.html, and the film that it shows."""

from collections.abc import Mapping, Sequence
import logging
from pathlib import Path
from typing import Any

import numpy as np

from dpjax.core import extras
from dpjax.core.errors import UserError
from dpjax.evaluation import report, scores, video
from dpjax.evaluation.rollout import Episode
from dpjax.runs import figures
from dpjax.runs.run import Run
from dpjax.training import metrics

log = logging.getLogger("dpjax")


def is_possible() -> bool:
    """Whether the libraries of the report and the film are installed; logs a warning if not."""
    # Asked before the episodes run: without the libraries nothing is filmed.
    try:
        for library in ("matplotlib", "PIL", "av"):
            extras.require(library, extra="report")
    except UserError as error:
        log.warning("no report and no film: %s", error)
        return False
    return True


def write(
    folder: Path,
    run: Run,
    name: str,
    episodes: Sequence[Episode],
    numbers: Mapping[str, Any],
    measured_with: Mapping[str, Any],
    *,
    gif: str | None = None,
) -> Path:
    """Writes report.html, and rollouts.mp4 if episodes were filmed; returns the page's path.

    name: the run folder, or the name of a shipped policy. numbers: what `scores.summarize`
    returned. measured_with: the sampler, machine, versions, …. gif: where to write the film as a
    gif too, or None.
    """
    # 1. The film, and pictures of its first episode.
    filmed = [episode for episode in episodes if episode.frames]
    film = folder / "rollouts.mp4" if filmed else None
    stills = []
    if film is not None:
        _write_films(film, filmed, gif)
        stills = figures.stills(run, filmed[0])

    # 2. The training, and the conditions of the evaluation.
    curves, seconds = _training(Path(name))
    provenance = {**measured_with, "training_seconds": round(seconds, 1)}
    # A film without pictures: the page says why.
    if filmed and not stills:
        provenance["picture of action chunks"] = "none: the task has no `place`"

    # 3. The page.
    page = folder / "report.html"
    report.write_report(
        page,
        title=f"{run.config.task}: {name}",
        summary=scores.line(numbers),
        scores={measured_with["sampler"]: numbers},  # one label, one line of the plot
        curves=curves,
        coverages=_coverages(episodes),
        video=film,
        stills=stills,
        provenance=provenance,
    )
    return page


def _coverages(episodes: Sequence[Episode]) -> Sequence[float]:
    """The largest progress of each valid episode; empty if these are only 0 and 1."""
    valid = [episode for episode in episodes if not episode.broken]
    best = [float(np.max(episode.progress, initial=0.0)) for episode in valid]
    # If progress is only 0 or 1, as in MetaWorld, a plot would repeat the success rate.
    return () if set(best) <= {0.0, 1.0} else best


def _training(folder: Path) -> tuple[dict[str, tuple[list, list]], float]:
    """The curves of the training, {title: (steps, losses)}, and the seconds that it took.

    A shipped policy has no curves and 0 seconds, since it has no metrics.jsonl.
    """
    # Each line of metrics.jsonl holds some of the metrics.
    entries = metrics.read(folder / "metrics.jsonl")
    curves = {"training": "loss", "validation": "val_loss"}
    curves = {title: metrics.series(entries, key) for title, key in curves.items()}
    # A metric without values is left out, such as val_loss in a training without validation.
    curves = {title: curve for title, curve in curves.items() if len(curve[0])}
    # "seconds" counts from the start of the training, so the largest value is its duration.
    seconds = max([entry.get("seconds", 0.0) for entry in entries], default=0.0)
    return curves, seconds


def _write_films(path: Path, episodes: Sequence[Episode], gif: str | None) -> None:
    """Writes the filmed episodes as one mp4, and as a gif if `gif` is its path."""
    # Both films show the same numbers and borders.
    clips = [episode.frames for episode in episodes]
    labels = {
        "progress": [episode.progress for episode in episodes],
        "success": [episode.success for episode in episodes],
    }
    video.grid_video(path, clips, **labels)
    if gif:
        video.grid_gif(gif, clips, **labels)
