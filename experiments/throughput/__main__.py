"""dpjax against PyTorch, and against what the machine can do, in one run.

    make bench-peers                      # once: PyTorch and LeRobot in .venv-peers
    python -m experiments.throughput [--gates | --only train_] [--rounds 5]

Every case is prepared by dpjax, PyTorch eager and PyTorch compiled, each in a process of
its own; then they take turns, about a second each, and wait while the others work; with
--together N the sides of N cases are prepared at once, which saves the time of a lent machine
that has many cores (and lengthens compile times). Without .venv-peers dpjax is measured
alone. Writes results.json and ratios.png beside this, of an accelerator results-NAME.json
and ratios-NAME.png after every case: rows that were not measured this time stay as they
were, and every row says its own commit and the ceilings of its own run.
"""

import argparse
from collections.abc import Iterator
import json
from pathlib import Path
import subprocess
import sys
import tempfile

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np
from tqdm import tqdm

from dpjax.core import errors
from dpjax.core.errors import UserError
from dpjax.evaluation import provenance
from experiments.throughput import cases

HERE = Path(__file__).parent
PEERS = Path(".venv-peers/bin/python")
TURN = 1000.0  # ms of calls a turn, one call at least
# The gates of the plan: what must be reached, as (result, at least).
GATES = {
    "train_unet_small": 2.0,
    "train_unet_65m": 2.0,
    "train_image": 1.5,
    "sample_b1_small": 2.5,
    "sample_b1_65m": 2.5,
    "sample_b1_65m_share_of_bandwidth": 0.8,
    "train_65m_share_of_sgemm": 0.8,
}
GATED = ("train_unet_small", "train_unet_65m", "train_image")
GATED += ("sample_unet_small_ddpm-100_b1", "sample_unet_65m_ddpm-100_b1")


class Side:
    """A process that prepares a case, and the milliseconds of its calls so far."""

    def __init__(self, command: list, case: dict, folder=None):
        self.said = tempfile.TemporaryFile("w+")  # a pipe that nobody reads would fill up
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
        )
        self.took = []
        self.say(case)

    def wait(self) -> None:
        """Until the case is prepared."""
        self.facts = self.hear()
        self.ask(1)  # some libraries compile twice

    def ask(self, what):
        self.say(what)
        return self.hear()

    def say(self, what) -> None:
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def hear(self):
        answer = self.process.stdout.readline()
        if not answer:
            self.said.seek(0)
            lines = self.said.read().strip().splitlines()
            last = ([line for line in lines if "rror" in line] or lines or [""])[-1]
            raise UserError(f"{' '.join(map(str, self.process.args))} ended: {last}")
        return json.loads(answer)

    def turn(self) -> None:
        calls = max(1, int(TURN / np.median(self.took))) if self.took else 1
        self.took += self.ask(calls)

    def end(self) -> dict:
        """Median and 10 to 90 % of the calls, ms; compile seconds and largest memory."""
        self.process.stdin.write("end\n")
        self.process.stdin.close()
        peak = self.hear()
        self.process.wait()
        took = np.array(self.took) / self.facts.get("steps_a_call", 1)
        low, median, high = np.quantile(took, [0.1, 0.5, 0.9])
        row = {"ms": median, "ms_spread": [low, high], "calls": len(self.took)}
        return {**row, **peak, **self.facts}


def sides(case: dict, peers: bool) -> Iterator[tuple[str, Side]]:
    """Who takes part in a case; each is started when it is asked for."""
    yield "dpjax", Side([sys.executable, "-m", "experiments.throughput.ours"], case)
    if peers and case["kind"] != "ceiling" and case.get("sampler", "ddpm") in ("ddpm", "ddim"):
        for name, compiled in (("eager", False), ("compiled", True)):
            command = [PEERS.absolute(), "peer.py"]
            yield name, Side(command, {**case, "compiled": compiled}, HERE)


def prepared(wanted: list[dict], peers: bool, together: int) -> Iterator[tuple[dict, dict]]:
    """(case, its sides, ready): side after side, or at once those of `together` cases."""
    for first in range(0, len(wanted), together):
        group = []
        for case in wanted[first : first + together]:
            group.append((case, {}))
            for name, side in sides(case, peers):
                group[-1][1][name] = side
                if together == 1:
                    side.wait()
        if together > 1:
            for _, made in group:
                for side in made.values():
                    side.wait()
        yield from group


def measure(case: dict, made: dict[str, Side], rounds: int) -> dict:
    """One row: every side's numbers, and how many times faster dpjax is than the faster peer."""
    for _ in range(rounds + 1):  # the first turn is one call, to know how many a second are
        for side in made.values():
            side.turn()
    row = {**case, **{name: side.end() for name, side in made.items()}}
    others = [row[name]["ms"] for name in ("eager", "compiled") if name in row]
    row["ratio"] = min(others) / row["dpjax"]["ms"] if others else None
    return row


def ceilings(rounds: int) -> dict:
    """What the machine does at best: products in FLOP/s, reading in bytes/s."""
    found = {}
    limits = [{"name": name, "kind": "ceiling"} for name in ("sgemm", "bandwidth")]
    for case, made in prepared(limits, False, 1):
        row = measure(case, made, rounds)["dpjax"]
        found[case["name"]] = row["amount"] / (row["ms_spread"][0] * 1e-3)  # the best tenth
    return found


def shares(row: dict, limits: dict) -> dict:
    """How near dpjax comes to the ceiling of its kind: products, or reading the weights."""
    ours, seconds = row["dpjax"], row["dpjax"]["ms"] * 1e-3
    if "matmul_flops" in ours:
        share = lambda flops: flops and flops / seconds / limits["sgemm"]
        made = share(ours.get("made_flops"))
        return {"share_of_sgemm": share(ours["matmul_flops"]), "share_made": made}
    if row["kind"] == "sample" and row["batch"] == 1:
        once = ours["parameters"] - ours["loop_parameters"]
        weights = 4 * (once + row["steps"] * ours["loop_parameters"])
        return {"share_of_bandwidth": weights / seconds / limits["bandwidth"]}
    return {}


def gates(rows: dict) -> dict:
    """The numbers that the plan names; None where a side is missing."""
    get = lambda name, key: rows.get(name, {}).get(key)
    found = {f"train_{name}": get(f"train_{name}", "ratio") for name in ("unet_small", "unet_65m")}
    found["train_image"] = get("train_image", "ratio")
    for short, name in (("small", "unet_small"), ("65m", "unet_65m")):
        found[f"sample_b1_{short}"] = get(f"sample_{name}_ddpm-100_b1", "ratio")
    share = get("sample_unet_65m_ddpm-100_b1", "share_of_bandwidth")
    found["sample_b1_65m_share_of_bandwidth"] = share
    found["train_65m_share_of_sgemm"] = get("train_unet_65m", "share_of_sgemm")
    return found


def plot(path: Path, rows: dict) -> None:
    """Every case's ratio to the faster peer, as bars."""
    named = [(name, row["ratio"]) for name, row in rows.items() if row["ratio"]]
    if not named:
        return
    figure = Figure(figsize=(8, 0.32 * len(named) + 1), layout="constrained")
    axes = figure.add_subplot()
    names, ratios = zip(*reversed(named))
    axes.barh(names, ratios, color=["#2563eb" if x >= 1 else "#e8590c" for x in ratios])
    axes.axvline(1, color="black", lw=0.8)
    for y, ratio in enumerate(ratios):
        axes.text(ratio, y, f" {ratio:.2f}", va="center", fontsize=8)
    axes.margins(y=0.01)
    axes.set(xlabel="times as fast as the faster of PyTorch eager and compiled")
    axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_png(str(path))


def table(rows: dict) -> str:
    """The rows in Markdown."""
    lines = ["| case | dpjax ms | eager ms | compiled ms | ratio | share of ceiling | peak MB |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        times = [f"{row[side]['ms']:.1f}" if side in row else "" for side in
                 ("dpjax", "eager", "compiled")]  # fmt: skip
        share = row.get("share_of_sgemm") or row.get("share_of_bandwidth")
        cells = [name, *times, f"{row['ratio']:.2f}" if row["ratio"] else ""]
        cells += [f"{share:.0%}" if share else "", f"{row['dpjax']['peak_mb']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write(folder: Path, rows: dict, machine: dict) -> None:
    """The results of the rows' device with these rows in the place of its own, and a picture."""
    device = next(iter(rows.values()))["dpjax"]["device"]
    end = "" if device == "cpu" else "-" + device.lower().replace(" ", "-")
    path = folder / f"results{end}.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else {}
    place = {case["name"]: i for i, case in enumerate(cases.everything())}
    found = {**before, **rows}
    rows = {name: found[name] for name in sorted(found, key=lambda x: place.get(x, len(place)))}
    result = {"gates": gates(rows), "rows": rows, **machine, "versions": provenance.versions()}
    path.write_text(json.dumps(result, indent=2) + "\n")
    plot(folder / f"ratios{end}.png", rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.throughput")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--gates", action="store_true", help="only the cases of the gates")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every side")
    parser.add_argument("--together", type=int, default=1, help="cases prepared at once")
    given = parser.parse_args()
    every = cases.everything()
    named = lambda case: given.only in case["name"]
    wanted = [case for case in every if (case["name"] in GATED if given.gates else named(case))]
    if not wanted:
        names = ", ".join(case["name"] for case in every)
        raise UserError(f"--only {given.only}: no case has it in its name; there are {names}.")
    peers = PEERS.exists()
    if not peers:
        print(f"{PEERS} is not there (make bench-peers): dpjax alone")
    limits, rows = ceilings(given.rounds), {}
    about = {"ceilings": limits, "commit": provenance.commit()}
    for case, made in tqdm(prepared(wanted, peers, given.together), unit="case", total=len(wanted)):
        machine = made["dpjax"].facts.pop("machine")
        row = measure(case, made, given.rounds)
        rows[case["name"]] = {**row, **shares(row, limits), **about}
        write(HERE, rows, machine)
        tqdm.write(table({case["name"]: rows[case["name"]]}).splitlines()[-1])
    print(table(rows))
    for name, value in gates(rows).items():
        if value is not None:
            said = "met" if value >= GATES[name] else "missed"
            print(f"{name}: {value:.2f} (gate {GATES[name]}: {said})")
    return 0


if __name__ == "__main__":
    errors.run(main)
