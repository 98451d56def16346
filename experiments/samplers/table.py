"""What becomes of the rows: the table, results.json and the picture."""

import json
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from dpjax.evaluation import provenance

REFERENCE = "ddpm-100"
LOSS, FASTER = 0.02, 20  # what a few-step sampler may lose of the score, and must gain in speed
COLUMNS = "ms|first|faster|error|diversity|score|success|score lost".split("|")


def recommended(rows: dict[str, dict]) -> str:
    """The fastest whose score is within LOSS of the reference's, of whichever run."""
    good = [name for name, row in rows.items() if row["less"] <= LOSS]
    return min(good, key=lambda name: rows[name]["ms"])


def lost(row: dict) -> str:
    """The paired loss of the score, and its interval; z: zero has no sign."""
    low, high = row["gain_interval"]
    return f"{row['less']:z.3f} [{-high:z.3f}, {-low:z.3f}]"


def show(rows: dict[str, dict]) -> None:
    """The rows, in Markdown."""
    print("| sampler | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, row in rows.items():
        cells = [f"{row[key]:.1f}" for key in ("ms", "ms_first", "speedup", "error", "diversity")]
        for key in ("score", "success"):
            low, high = row[f"{key}_interval"]
            cells.append(f"{row[key]:.3f} [{low:.3f}, {high:.3f}]")
        print(f"| {name} | {' | '.join(cells)} | {lost(row)} |")


def plot(path: Path, rows: dict[str, dict]) -> None:
    """Score and success against milliseconds."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    kinds = dict.fromkeys(row["name"] for row in rows.values())
    colors = {kind: f"C{i}" for i, kind in enumerate(kinds)}
    marker = lambda row: "^" if row["warm_start"] else "o"
    text = lambda row: f"{row['steps']}" + (f"·{row['warm_start']:g}" if row["warm_start"] else "")
    for axes, key in zip(figure.subplots(1, 2), ("score", "success")):
        for row in rows.values():
            low, high = row[f"{key}_interval"]
            bars = [[row[key] - low], [high - row[key]]]
            color = colors[row["name"]]
            axes.errorbar(row["ms"], row[key], bars, fmt=marker(row), color=color)
            axes.annotate(text(row), (row["ms"], row[key]), (4, 4), textcoords="offset points")
        axes.set(xscale="log", xlabel="ms a plan, batch 1", title=f"{key}, 95 % interval")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    for name, color in colors.items():
        axes.plot([], [], "o", color=color, label=name)
    axes.plot([], [], "^", color="gray", label="steps·warm start")
    figure.legend(frameon=False, loc="outside right center")
    FigureCanvasAgg(figure).print_png(str(path))


def write(folder: Path, rows: dict[str, dict], run: str) -> None:
    """The table on the screen; results.json and pareto.png in the folder."""
    show(rows)
    best = recommended(rows)
    said = "met" if rows[best]["speedup"] >= FASTER else f"missed ({FASTER} times wanted)"
    print(
        f"recommended: {best}, {rows[best]['speedup']:.1f} times as fast: {said}; it loses "
        f"{lost(rows[best])} of the score"
    )
    keys = ("score", "success", "ms", "ms_first", "episodes", "speedup")
    pick = lambda name: {"sampler": name, **{key: rows[name][key] for key in keys}}
    result = {
        "ddpm_100": pick(REFERENCE),
        "few_step": pick(best),
        "rows": rows,
        "run": run,
        **provenance.provenance(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    plot(folder / "pareto.png", rows)
