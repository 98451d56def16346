"""The report of an evaluation of a run: report.html, and the film that it shows."""

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
    """Whether the libraries of the report and the film are installed; logs a line if not."""
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

    name: the run folder, or the name of a policy that comes with dpjax. numbers: what
    `scores.summarize` returned. measured_with: the sampler, machine, versions, …. gif: where to
    write the film as a gif too.
    """
    filmed = [episode for episode in episodes if episode.frames]
    film = folder / "rollouts.mp4" if filmed else None
    stills = []
    if film is not None:
        _write_films(film, filmed, gif)
        stills = figures.stills(run, filmed[0])
    missing = {} if stills or not filmed else {"picture of plans": "none: the task has no `place`"}

    # The training's curves and time. A policy that comes with dpjax has none.
    entries = metrics.read(Path(name) / "metrics.jsonl")
    curves = {"training": "loss", "validation": "val_loss"}
    curves = {title: metrics.series(entries, key) for title, key in curves.items()}
    trained = max([entry.get("seconds", 0.0) for entry in entries], default=0.0)

    valid = [episode for episode in episodes if not episode.broken]
    best = [float(np.max(episode.progress, initial=0.0)) for episode in valid]
    is_graded = not set(best) <= {0.0, 1.0}  # otherwise the success rate already says it all
    page = folder / "report.html"
    report.write_report(
        page,
        title=f"{run.config.task}: {name}",
        summary=scores.line(numbers),
        scores={measured_with["sampler"]: numbers},
        curves={title: curve for title, curve in curves.items() if len(curve[0])},
        coverages=best if is_graded else (),
        video=film,
        stills=stills,
        provenance={**measured_with, "training_seconds": round(trained, 1), **missing},
    )
    return page


def _write_films(path: Path, episodes: Sequence[Episode], gif: str | None) -> None:
    """Writes the episodes that were filmed as one mp4, and as a gif if its path is given."""
    clips = [episode.frames for episode in episodes]
    labels = {
        "progress": [episode.progress for episode in episodes],
        "success": [episode.success for episode in episodes],
    }
    video.grid_video(path, clips, **labels)
    if gif:
        video.grid_gif(gif, clips, **labels)
