"""Samplers, steps, warm starts and methods on one task: time, error, diversity, scores.

    python -m experiments.samplers --run runs/pusht_small [--episodes 300] \\
        [--others runs/pusht_flow,runs/pusht_meanflow]

    ms           of one action chunk at batch 1, the median of 30: the samplers take turns of
                 six chunks each, whose first one is left out. With a warm start, each chunk
                 starts from a previous one
    ms_first     the median of those first ones: after other programs, with cold caches
    error        root mean square distance of the mean of 32 chunks from that of DDPM-100, over
                 32 observations, executed steps and dims, in the actions' units. The reference
                 measured against itself with other noise shows the smallest error possible
    diversity    standard deviation of the 32 chunks, averaged over the same
    score, success   on the official seeds: every row has the same episodes
    less, gain_interval   the score lost against DDPM-100, and the 95 % interval of the score
                 gained, seed by seed

Nothing is trained, and evaluations that the run folders hold are not made again. Writes
results.json and pareto.png into this folder, or into --out.
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
from experiments.samplers import rows as rows_lib
from experiments.samplers import table
from experiments.samplers.measure import measure


def paired(result: dict, reference: dict, episodes: int) -> dict:
    """Difference of the scores, seed by seed, and its 95 % interval."""
    pairs = zip(result["by_seed"][:episodes], reference["by_seed"][:episodes], strict=True)
    valid = [(a["score"], b["score"]) for a, b in pairs if a["broken"] is b["broken"] is None]
    gains = [a - b for a, b in valid]
    return {"less": -float(np.mean(gains)), "gain_interval": scores.bootstrap(gains)}


def scored(row: rows_lib.Row, episodes: int) -> dict:
    """The evaluation of a row; an existing one of more episodes serves as well."""
    label = sampler_label(row.sampler, row.steps, row.warm_start)
    for path in sorted(row.run.glob(f"evaluation-{label}-ema-*.json")):
        if int(path.stem.rpartition("-")[2]) >= episodes:
            return json.loads(path.read_text())
    return collect.evaluation(row.run, row.sampler, row.steps, episodes, warm_start=row.warm_start)


def parse_args(argv=None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.samplers")
    parser.add_argument("--run", required=True, type=Path, help="a run of dpjax.train")
    parser.add_argument("--others", default="", help="runs of flow and meanflow: RUN,RUN")
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args(argv)
    if args.episodes < 2:
        raise UserError(f"--episodes {args.episodes}: an interval needs at least 2.")
    return args


def main(argv=None) -> int:
    args = parse_args(argv)
    rows = rows_lib.of_main(args.run)
    for other in filter(None, args.others.split(",")):
        rows += rows_lib.of_other(Path(other))
    rows_lib.check_names(rows)

    # Time, error and diversity of all rows in one process, then the scores one by one.
    measured = measure(rows_lib.load(rows))
    reference = scored(rows[0], args.episodes)
    table_rows = {}
    for row in rows:
        result = scored(row, args.episodes)
        table_rows[row.name] = {
            "name": row.kind,
            "steps": row.steps,
            "warm_start": row.warm_start,
            "run": row.run.name,
            **measured[row],
            **paired(result, reference, args.episodes),
            **collect.row(result, args.episodes),
        }
    table.write(args.out, table_rows, args.run.name)
    return 0


if __name__ == "__main__":
    flags.run(main)
