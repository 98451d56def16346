"""The table of all rows, results.json and the plot."""

import json
from pathlib import Path

from matplotlib.ticker import LogLocator

from dpjax.evaluation import plots, provenance

REFERENCE = "ddpm-100"
LOSS = 0.02  # of the score, that a few-step sampler may lose
SPEEDUP = 20  # that it should have
COLUMNS = "ms|first|faster|error|diversity|score|success|score lost".split("|")


def recommended(rows: dict[str, dict]) -> str:
    """The fastest row whose score is at most LOSS below the reference's, of any run."""
    good = [name for name, row in rows.items() if row["less"] <= LOSS]
    return min(good, key=lambda name: rows[name]["ms"])


def score_lost(row: dict) -> str:
    """The paired loss of the score with its interval: "0.011 [-0.004, 0.028]"."""
    low, high = row["gain_interval"]
    # The format's z prints a rounded zero without a sign.
    return f"{row['less']:z.3f} [{-high:z.3f}, {-low:z.3f}]"


def show(rows: dict[str, dict]) -> None:
    """Prints the rows in Markdown."""
    print("| sampler | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, row in rows.items():
        cells = [f"{row[key]:.1f}" for key in ("ms", "ms_first", "speedup", "error", "diversity")]
        for key in ("score", "success"):
            low, high = row[f"{key}_interval"]
            cells.append(f"{row[key]:.3f} [{low:.3f}, {high:.3f}]")
        print(f"| {name} | {' | '.join(cells)} | {score_lost(row)} |")


def plot(path: Path, rows: dict[str, dict]) -> None:
    """Score and success over milliseconds; one colour per sampler, triangles for warm starts."""
    figure = plots.figure(11, 4.4)
    kinds = dict.fromkeys(row["name"] for row in rows.values())
    colors = {kind: f"C{i}" for i, kind in enumerate(kinds)}
    for axes, key in zip(figure.subplots(1, 2), ("score", "success")):
        for row in rows.values():
            low, high = row[f"{key}_interval"]
            bars = [[row[key] - low], [high - row[key]]]
            marker = "^" if row["warm_start"] else "o"
            color = colors[row["name"]]
            axes.errorbar(row["ms"], row[key], bars, fmt=marker, color=color)
            label = f"{row['steps']}" + (f"·{row['warm_start']:g}" if row["warm_start"] else "")
            axes.annotate(label, (row["ms"], row[key]), (4, 4), textcoords="offset points")
        axes.set(xscale="log", xlabel="ms per chunk, batch 1", title=f"{key}, 95 % interval")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    # `axes` is the last plot: its empty lines make the legend.
    for name, color in colors.items():
        axes.plot([], [], "o", color=color, label=name)
    axes.plot([], [], "^", color="gray", label="steps·warm start")
    figure.legend(frameon=False, loc="outside right center")
    path.write_bytes(plots.png(figure))


def write(folder: Path, rows: dict[str, dict], run: str) -> None:
    """Prints the table; writes results.json and pareto.png into the folder."""
    show(rows)
    best = recommended(rows)
    speedup = rows[best]["speedup"]
    verdict = "met" if speedup >= SPEEDUP else f"missed ({SPEEDUP} times wanted)"
    print(
        f"recommended: {best}, {speedup:.1f} times as fast: {verdict}; it loses "
        f"{score_lost(rows[best])} of the score"
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
