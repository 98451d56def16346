"""Samplers, steps, warm starts and methods on one task: time, error, diversity, scores.

    python -m experiments.samplers --run runs/pusht_small [--episodes 300] \\
        [--others runs/pusht_flow,runs/pusht_meanflow]

    ms           of one plan at batch 1, the median of 30; the samplers take turns, five
                 plans and a first one each. Of a warm start, a plan with one before it
    ms_first     of those first ones, the median: after other programs, with cold caches
    error        of the mean of 32 chunks against that of DDPM-100, root mean square over
                 32 observations, executed steps and dims, in the actions' units; the
                 reference measured against itself with other noise is the floor
    diversity    standard deviation of the 32 chunks, averaged likewise
    score, success   on the official seeds, paired: every row meets the same episodes
    less, gain_interval   what the score loses against DDPM-100, and what it gains with
                 95 % interval, seed by seed

Nothing is trained. Evaluations that the run folders hold are not made again. Writes
results.json and pareto.png beside this, or to --out.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from dpjax.config import flags
from dpjax.core.errors import UserError
from dpjax.evaluate import sampler_label
from dpjax.evaluation import scores
from experiments import collect
from experiments.samplers import rows as rows_of
from experiments.samplers import table
from experiments.samplers.measure import measured


def paired(result: dict, reference: dict, episodes: int) -> dict:
    """Difference of the scores, seed by seed, and its 95 % interval."""
    pairs = zip(result["by_seed"][:episodes], reference["by_seed"][:episodes], strict=True)
    both = [(a["score"], b["score"]) for a, b in pairs if a["broken"] is b["broken"] is None]
    gaps = [a - b for a, b in both]
    return {"less": -float(np.mean(gaps)), "gain_interval": scores.bootstrap(gaps)}


def scored(row: rows_of.Row, episodes: int) -> dict:
    """The evaluation of a row; a longer one that is there already will do."""
    asked = (row.sampler, row.steps)
    label = sampler_label(*asked, row.warm_start)
    for path in sorted(row.run.glob(f"evaluation-{label}-ema-*.json")):
        if int(path.stem.rpartition("-")[2]) >= episodes:
            return json.loads(path.read_text())
    return collect.evaluation(row.run, *asked, episodes, warm_start=row.warm_start)


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.samplers")
    parser.add_argument("--run", required=True, type=Path, help="a run of dpjax.train")
    parser.add_argument("--others", default="", help="runs of flow and meanflow: RUN,RUN")
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    given = parser.parse_args(argv)
    if given.episodes < 2:
        raise UserError(f"--episodes {given.episodes}: at least 2, to say how sure it is.")
    return given


def main(argv=None) -> int:
    given = arguments(argv)
    asked = rows_of.of_main(given.run)
    for other in filter(None, given.others.split(",")):
        asked += rows_of.of_other(Path(other))
    rows_of.check_names(asked)
    numbers = measured(rows_of.load(asked))
    reference, found = scored(asked[0], given.episodes), {}
    for row in asked:
        result = scored(row, given.episodes)
        found[row.name] = {
            "name": row.kind,
            "steps": row.steps,
            "warm_start": row.warm_start,
            "run": row.run.name,
            **numbers[row],
            **paired(result, reference, given.episodes),
            **collect.row(result, given.episodes),
        }
    table.write(given.out, found, given.run.name)
    return 0


if __name__ == "__main__":
    flags.run(main)
