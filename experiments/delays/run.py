"""Push-T under a delay: aligned, not aligned, waiting, and agreement with the last chunk.

    python -m experiments.delays.run [--episodes 300] [--only aligned]

Measures the cells that results.json lacks, and writes after each. The policy is the one that comes
with dpjax; the seeds are 200000 and on.
"""

import argparse
import json
from pathlib import Path

from dpjax.core import errors
from dpjax.evaluation import plots, provenance
from experiments.delays.measure import measure, paired
from experiments.delays.methods import CELLS, DELAYS, METHODS

HERE = Path(__file__).parent
RUN = "pusht_demo"
GATE = 0.08  # what alignment must gain in score at the largest delay


def picture(rows: list[dict]) -> bytes:
    """Success and second difference of every method against the delay; png."""
    canvas = plots.figure(8.0, 3.2)
    axes = canvas.subplots(1, 2)
    for method, color in zip(METHODS, plots.COLORS, strict=True):
        mine = sorted((r for r in rows if r["method"] == method), key=lambda r: r["delay"])
        for ax, name in zip(axes, ("score", "second_difference"), strict=True):
            ax.plot([r["delay"] for r in mine], [r[name] for r in mine], "o-", label=method,
                    color=color, ms=4)  # fmt: skip
    for ax, name in zip(axes, ("score", "second difference, px"), strict=True):
        ax.set(xlabel="delay, steps", ylabel=name, xticks=DELAYS)
        ax.grid(alpha=0.25, lw=0.6)
    axes[0].legend(frameon=False, fontsize=8)
    return plots.png(canvas)


def comparisons(rows: list[dict]) -> dict[str, dict]:
    """The paired differences that the README names, of the cells that exist."""
    of = {(row["method"], row["delay"]): row for row in rows}
    pairs = {
        "aligned minus not aligned, d = 4": (("aligned", 4), ("not aligned", 4)),
        "aligned minus waiting, d = 4": (("aligned", 4), ("waiting", 4)),
        "aligned, d = 4 minus d = 0": (("aligned", 4), ("aligned", 0)),
        **{f"{m} minus aligned, d = 4": ((m, 4), ("aligned", 4)) for m in ("blend", "line", "rtc")},
    }
    return {name: paired(of[a], of[b]) for name, (a, b) in pairs.items() if a in of and b in of}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.delays.run")
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--only", default="", help="methods whose name contains this")
    args = parser.parse_args()
    path = HERE / "results.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    done = {(row["method"], row["delay"]) for row in rows if row["episodes"] >= args.episodes}
    for method, delay in CELLS:
        if (method, delay) in done or args.only not in method:
            continue
        rows = [r for r in rows if (r["method"], r["delay"]) != (method, delay)]
        rows.append(json.loads(json.dumps(measure(RUN, method, delay, args.episodes))))
        found = comparisons(rows)
        gain = found.get("aligned minus not aligned, d = 4")
        result = {
            "run": RUN,
            "rows": rows,
            "paired": found,
            "gate": gain and gain["score"]["mean"] >= GATE and gain["score"]["interval"][0] > 0,
            **provenance.provenance(),
        }
        path.write_text(json.dumps(result, indent=1) + "\n")
        (HERE / "delays.png").write_bytes(picture(rows))
    for name, values in comparisons(rows).items():
        score, success = values["score"], values["success"]
        print(f"{name}: score {score['mean']:+.3f} {score['interval']}, "
              f"success {success['mean']:+.3f} {success['interval']}")  # fmt: skip
    return 0


if __name__ == "__main__":
    errors.run(main)
