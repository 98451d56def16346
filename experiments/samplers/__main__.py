"""Every sampler and number of steps from one checkpoint: time, error, diversity, scores.

    python -m experiments.samplers --run runs/pusht_small [--episodes 300]

    ms           of one plan at batch 1, the median of 30; the samplers take turns, five
                 plans and a first one each
    ms_first     of those first ones, the median: after other programs, with cold caches
    error        of the mean of 32 chunks against that of DDPM-100, root mean square over
                 32 observations, executed steps and dims, in the actions' units; the
                 reference measured against itself with other noise is the floor
    diversity    standard deviation of the 32 chunks, averaged likewise
    score, success   on the official seeds, paired: every sampler meets the same episodes

Nothing is trained. Evaluations that the run folder holds are not made again. Writes
results.json and pareto.png beside this.
"""

import argparse
import json
from pathlib import Path
import time

import jax
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
import numpy as np
from tqdm import tqdm

from dpjax import build, command_line, tasks
from dpjax.errors import UserError
from dpjax.evaluation import facts, scores
from dpjax.types import row_keys
from experiments import collect

HERE = Path(__file__).parent
REFERENCE = ("ddpm", 100)
ROWS = (
    *(("ddpm", steps) for steps in (100, 20, 10, 5)),
    *(("ddim", steps) for steps in (10, 5, 4, 3, 2)),
    *(("dpm_solver", steps) for steps in (10, 5, 4, 3)),
    *(("heun", steps) for steps in (5, 2)),
)
CHUNKS, OBSERVATIONS, TURNS, TIMED = 32, 32, 6, 5
LOSS, FASTER = 0.02, 20  # what a few-step sampler may lose of the score, and must gain in speed


def observations(task, observed: int) -> dict[str, np.ndarray]:
    """{name: [OBSERVATIONS, To, ...]}: the first looks of selection seeds."""
    env, seen = task.make(), []
    for seed in range(task.selection_seeds, task.selection_seeds + OBSERVATIONS):
        seen.append(task.observe({key: x[None] for key, x in task.reset(env, seed).items()}))
    getattr(env, "close", lambda: None)()
    return {key: np.stack([np.repeat(x[key], observed, axis=0) for x in seen]) for key in seen[0]}


def chunks(run, obs: dict, seed: int) -> np.ndarray:
    """[CHUNKS, OBSERVATIONS, Ta, Da]: what would be executed."""
    first = run.config.horizon.obs - 1
    keys = row_keys(jax.random.key(seed), np.arange(CHUNKS * OBSERVATIONS))
    keys = keys.reshape(CHUNKS, OBSERVATIONS)
    drawn = np.stack([run.plan(key, obs) for key in keys])
    return drawn[:, :, first : first + run.config.horizon.act]


def timed(runs: dict, obs: dict) -> dict:
    """{row: ms, ms_first} of one plan at batch 1; in turns, so that noise hits all."""
    one, took = {key: x[:1] for key, x in obs.items()}, {row: [] for row in runs}
    for run in runs.values():
        run.warm_up()
    for turn in range(TURNS):
        for row, run in runs.items():
            took[row].append([])
            for _ in range(TIMED + 1):
                start = time.perf_counter()
                run.plan(jax.random.key(turn), one)
                took[row][-1].append((time.perf_counter() - start) * 1e3)
    middle = lambda x: float(np.median(x))
    turns = {row: np.array(x) for row, x in took.items()}
    return {row: {"ms": middle(x[:, 1:]), "ms_first": middle(x[:, 0])} for row, x in turns.items()}


def measured(runs: dict, obs: dict) -> dict[tuple, dict]:
    """{row: ms, ms_first, speedup, error, diversity}."""
    wanted = chunks(runs[REFERENCE], obs, seed=1).mean(0)
    took, found = timed(runs, obs), {}
    for row, run in tqdm(runs.items(), desc="chunks", unit="sampler"):
        drawn = chunks(run, obs, seed=0)
        found[row] = {
            **took[row],
            "speedup": took[REFERENCE]["ms"] / took[row]["ms"],
            "error": float(np.sqrt(np.mean((drawn.mean(0) - wanted) ** 2))),
            "diversity": float(drawn.std(0).mean()),
        }
    return found


def paired(result: dict, reference: dict, episodes: int) -> dict:
    """Difference of the scores, seed by seed, and its 95 % interval."""
    pairs = zip(result["by_seed"][:episodes], reference["by_seed"][:episodes], strict=True)
    both = [(a["score"], b["score"]) for a, b in pairs if a["broken"] is b["broken"] is None]
    gaps = [a - b for a, b in both]
    return {"less": -float(np.mean(gaps)), "gain_interval": scores.bootstrap(gaps)}


def scored(run: Path, row: tuple[str, int], episodes: int) -> dict:
    """The evaluation of a row; a longer one that is there already will do."""
    for path in sorted(run.glob(f"evaluation-{row[0]}-{row[1]}-ema-*.json")):
        if int(path.stem.rpartition("-")[2]) >= episodes:
            return json.loads(path.read_text())
    return collect.evaluation(run, *row, episodes)


def recommended(rows: dict) -> str:
    """The fastest whose score is within LOSS of the reference's."""
    good = [name for name, row in rows.items() if row["less"] <= LOSS]
    return min(good, key=lambda name: rows[name]["ms"])


def plot(path: Path, rows: dict) -> None:
    """Score and success against milliseconds."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    colors = dict(zip(dict.fromkeys(row["name"] for row in rows.values()), "C0 C1 C2 C3".split()))
    for axes, key in zip(figure.subplots(1, 2), ("score", "success")):
        for row in rows.values():
            low, high = row[f"{key}_interval"]
            bars = [[row[key] - low], [high - row[key]]]
            axes.errorbar(row["ms"], row[key], bars, fmt="o", color=colors[row["name"]])
            axes.annotate(row["steps"], (row["ms"], row[key]), (4, 4), textcoords="offset points")
        axes.set(xscale="log", xlabel="ms a plan, batch 1", title=f"{key}, 95 % interval")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    for name, color in colors.items():
        axes.plot([], [], "o", color=color, label=name)
    axes.legend(frameon=False)
    FigureCanvasAgg(figure).print_png(str(path))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.samplers")
    parser.add_argument("--run", required=True, type=Path, help="a run of dpjax.train")
    parser.add_argument("--episodes", type=int, default=300)
    given = parser.parse_args()
    if given.episodes < 2:
        raise UserError(f"--episodes {given.episodes}: at least 2, to say how sure it is.")
    runs = {row: build.load(given.run, sampler=row[0], steps=row[1]) for row in ROWS}
    config = runs[REFERENCE].config
    numbers = measured(runs, observations(tasks.get(config.task), config.horizon.obs))
    reference, rows = scored(given.run, REFERENCE, given.episodes), {}
    for row in ROWS:
        result = scored(given.run, row, given.episodes)
        rows[f"{row[0]}-{row[1]}"] = {
            "name": row[0],
            "steps": row[1],
            **numbers[row],
            **paired(result, reference, given.episodes),
            **collect.row(result, given.episodes),
        }
    write(rows, given.run)
    return 0


def write(rows: dict, run: Path) -> None:
    """The table, results.json and the picture."""
    print("| sampler | ms | first | faster | error | diversity | score | success |")
    print("|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        cells = [f"{row[key]:.1f}" for key in ("ms", "ms_first")]
        cells += [f"{row[key]:.2f}" for key in ("speedup", "error", "diversity")]
        for key in ("score", "success"):
            low, high = row[f"{key}_interval"]
            cells.append(f"{row[key]:.3f} [{low:.3f}, {high:.3f}]")
        print(f"| {name} | {' | '.join(cells)} |")
    best, reference = recommended(rows), "-".join(map(str, REFERENCE))
    said = "met" if rows[best]["speedup"] >= FASTER else f"missed ({FASTER} times wanted)"
    print(f"recommended: {best}, {rows[best]['speedup']:.1f} times as fast: {said}")
    keys = ("score", "success", "ms", "ms_first", "episodes", "speedup")
    pick = lambda name: {"sampler": name, **{key: rows[name][key] for key in keys}}
    result = {
        "ddpm_100": pick(reference),
        "few_step": pick(best),
        "rows": rows,
        "run": run.name,
        **facts.machine(),
        "versions": facts.versions(),
        "commit": facts.commit(),
    }
    (HERE / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    plot(HERE / "pareto.png", rows)


if __name__ == "__main__":
    command_line.run(main)
