"""The sides of a comparison: one process each, which take turns."""

from collections.abc import Iterator
import json
from pathlib import Path
import subprocess
import sys
import tempfile

import numpy as np

from dpjax.core.errors import UserError

HERE = Path(__file__).parent
PEERS = Path(".venv-peers/bin/python")
TURN = 1000.0  # milliseconds of calls in a turn, at least one call


class Side:
    """A process that prepares a case (`worker.serve`), and the milliseconds of its calls so far.

    facts: what the process reported about its case; set by `wait`.
    """

    def __init__(self, command: list, case: dict, folder: Path | None = None):
        """Starts the process; it prepares the case while others are started."""
        self.errors = tempfile.TemporaryFile("w+")  # a pipe that nobody reads would fill up
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.milliseconds = []
        self._send(case)

    def wait(self) -> None:
        """Waits until the case is prepared."""
        self.facts = self._receive()
        self._request(1)  # some libraries compile in the second call again

    def turn(self) -> None:
        """Makes calls for about TURN milliseconds; the first turn is one call."""
        calls = max(1, int(TURN / np.median(self.milliseconds))) if self.milliseconds else 1
        self.milliseconds += self._request(calls)

    def end(self) -> dict:
        """Ends the process; returns median and 10 to 90 % of the calls, memory and facts."""
        self.process.stdin.write("end\n")
        self.process.stdin.close()
        peak = self._receive()
        self.process.wait()
        # Some calls are several optimizer steps.
        steps = np.array(self.milliseconds) / self.facts.get("steps_a_call", 1)
        low, median, high = np.quantile(steps, [0.1, 0.5, 0.9])
        row = {"ms": median, "ms_spread": [low, high], "calls": len(self.milliseconds)}
        return {**row, **peak, **self.facts}

    def _request(self, what):
        self._send(what)
        return self._receive()

    def _send(self, what) -> None:
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def _receive(self):
        """The next answer; if the process has ended, the last line of its errors is raised."""
        answer = self.process.stdout.readline()
        if not answer:
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines()
            last = ([line for line in lines if "rror" in line] or lines or [""])[-1]
            raise UserError(f"{' '.join(map(str, self.process.args))} ended: {last}")
        return json.loads(answer)


def start(case: dict, peers: bool) -> Iterator[tuple[str, Side]]:
    """(name, side) of all that take part in a case; each is started when it is asked for."""
    yield "dpjax", Side([sys.executable, "-m", "experiments.throughput.ours"], case)
    # PyTorch's side has neither MeanFlow nor the measurements of the machine.
    if peers and case["kind"] != "ceiling" and case.get("sampler", "ddpm") in ("ddpm", "ddim"):
        for name, compiled in (("eager", False), ("compiled", True)):
            command = [PEERS.absolute(), "peer.py"]
            yield name, Side(command, {**case, "compiled": compiled}, HERE)


def prepare(
    cases: list[dict], peers: bool, together: int
) -> Iterator[tuple[dict, dict[str, Side]]]:
    """(case, its prepared sides): side after side, or those of `together` cases at once."""
    for first in range(0, len(cases), together):
        group = []
        for case in cases[first : first + together]:
            sides = {}
            group.append((case, sides))
            for name, side in start(case, peers):
                sides[name] = side
                if together == 1:
                    side.wait()
        if together > 1:
            for _, sides in group:
                for side in sides.values():
                    side.wait()
        yield from group


def measure(case: dict, sides: dict[str, Side], rounds: int) -> dict:
    """One row: the numbers of each side, and how many times as fast dpjax is as the faster peer."""
    for _ in range(rounds + 1):  # the first turn is one call, which tells how many fit a second
        for side in sides.values():
            side.turn()
    row = {**case, **{name: side.end() for name, side in sides.items()}}
    peers = [row[name]["ms"] for name in ("eager", "compiled") if name in row]
    row["ratio"] = min(peers) / row["dpjax"]["ms"] if peers else None
    return row


def ceilings(rounds: int) -> dict:
    """What the machine does at best: matrix products in FLOP/s, reading in bytes/s."""
    rates = {}
    cases = [{"name": name, "kind": "ceiling"} for name in ("sgemm", "bandwidth")]
    for case, sides in prepare(cases, peers=False, together=1):
        row = measure(case, sides, rounds)["dpjax"]
        fastest = row["ms_spread"][0] * 1e-3  # seconds; the best tenth
        rates[case["name"]] = row["amount"] / fastest
    return rates
