"""dpjax against PyTorch, and against what the machine can do, in one run.

    make bench-peers                      # once: PyTorch and LeRobot in .venv-peers
    python -m experiments.throughput [--gates | --only train_] [--rounds 5]

Each case is prepared by dpjax, PyTorch eager and PyTorch compiled, each in a process of its own.
Then they take turns of about a second; the others wait meanwhile. With --together N the sides of
N cases are prepared at once, which is quicker on a machine with many cores but lengthens the
compile times. Without .venv-peers dpjax is measured alone.

Writes results.json and ratios.png into this folder, on an accelerator results-NAME.json and
ratios-NAME.png, after each case. Rows that were not measured this time stay as they were; each
row has its commit and the ceilings of its run.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from dpjax.core import errors
from dpjax.core.errors import UserError
from dpjax.evaluation import provenance
from experiments.throughput import cases, report, sides

HERE = Path(__file__).parent


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.throughput")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--gates", action="store_true", help="only the cases of the gates")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--together", type=int, default=1, help="cases prepared at once")
    return parser.parse_args()


def chosen(args: argparse.Namespace) -> list[dict]:
    """The cases to measure."""
    every = cases.everything()
    if args.gates:
        return [case for case in every if case["name"] in report.GATED]
    named = [case for case in every if args.only in case["name"]]
    if not named:
        names = ", ".join(case["name"] for case in every)
        raise UserError(f"--only {args.only}: no case has it in its name; there are {names}.")
    return named


def main() -> int:
    args = parse_args()
    todo = chosen(args)
    peers = sides.PEERS.exists()
    if not peers:
        print(f"{sides.PEERS} does not exist (make bench-peers): measuring dpjax alone")

    # The machine first: what each row is compared with.
    ceilings = sides.ceilings(args.rounds)
    about = {"ceilings": ceilings, "commit": provenance.commit()}

    # Written after each case, so that a run that is stopped keeps what it has measured.
    rows = {}
    prepared = sides.prepare(todo, peers, args.together)
    for case, of_case in tqdm(prepared, unit="case", total=len(todo)):
        machine = of_case["dpjax"].facts.pop("machine")
        row = sides.measure(case, of_case, args.rounds)
        rows[case["name"]] = {**row, **report.shares(row, ceilings), **about}
        report.write(HERE, rows, machine)
        tqdm.write(report.table({case["name"]: rows[case["name"]]}).splitlines()[-1])

    print(report.table(rows))
    for name, value in report.gates(rows).items():
        if value is not None:
            verdict = "met" if value >= report.GATES[name] else "missed"
            print(f"{name}: {value:.2f} (gate {report.GATES[name]}: {verdict})")
    return 0


if __name__ == "__main__":
    errors.run(main)
