"""What waits for memory in a training step on a CPU: operations that could run side by side.

    python -m experiments.cpu.waits

XLA's CPU starts an operation once all that it reads is written, on either thread. But
temporaries share memory: what XLA's list of operations names after the last reader of a
buffer may be written there, and then has to wait for that reader, whatever it needs itself.
This compiles and traces the small U-Net's training step with the products of convolutions as
they come and in the order of `winograd.products`, reads in XLA's own text where everything
lies, and writes waits.json: the time of all operations, of the longest chain of those that
need each other's results, and of the longest with the waits for memory too.
"""

import collections
import gzip
import itertools
import json
import os
from pathlib import Path
import re
import tempfile
from typing import NamedTuple
from unittest import mock

import jax

from dpjax.core import errors, runtime
from dpjax.evaluation import provenance
from dpjax.ops import transposed, winograd
from experiments.throughput import cases, ours

HERE = Path(__file__).parent
CALLS = 2  # that are traced
PROGRAM = "jit_call"  # `dpjax.jobs.caller`
DUMP = f"--xla_dump_to={{}} --xla_dump_hlo_as_text --xla_dump_hlo_module_re={PROGRAM}.*"
# These name what others made: nothing is run for them.
VIEWS = {"parameter", "tuple", "get-tuple-element", "bitcast", "constant", "opt-barrier"}
COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .* )?\{")
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (?:\(.*?\)|\S+) ([\w\-]+)\((.*)")
ALLOCATION = re.compile(r"allocation (\d+):")
VALUE = re.compile(r" value: <\d+ (.+?) @\d+> \(size=(\d+),offset=(\d+)\)")


class Place(NamedTuple):
    """Bytes of an allocation."""

    allocation: int
    start: int
    stop: int

    def overlaps(self, other: "Place") -> bool:
        same = self.allocation == other.allocation
        return same and self.start < other.stop and other.start < self.stop


class Instruction(NamedTuple):
    """A line of XLA's text."""

    kind: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """Names of what it reads: those before its closing bracket."""
        depth = 1
        for at, letter in enumerate(self.rest):
            depth += {"(": 1, ")": -1}.get(letter, 0)
            if not depth:
                return re.findall(r"%([\w.\-]+)", self.rest[:at])
        raise ValueError(f"no end of the operands of {self.kind}({self.rest[:80]}…")


def body(text: str) -> dict[str, Instruction]:
    """The longest computation of a program, which is a training step, in XLA's order."""
    computations, now = collections.defaultdict(dict), None
    for line in text.splitlines():
        if not line.startswith(" "):
            found = COMPUTATION.match(line)
            now = found and found[1]
        elif now and (found := INSTRUCTION.match(line)):
            computations[now][found[1]] = Instruction(found[2], found[3])
    return max(computations.values(), key=len)


def places(text: str) -> dict[str, Place]:
    """Where values lie; those inside of tuples are called name{index}."""
    found, allocation = {}, None
    for line in text.splitlines():
        if match := ALLOCATION.match(line):
            allocation = int(match[1])
        elif match := VALUE.match(line):
            size, start = int(match[2]), int(match[3])
            name = match[1].removesuffix(" (phi)")
            found.setdefault(name, Place(allocation, start, start + size))
    return found


class Step:
    """Operations of a training step in XLA's order, and what each waits for."""

    def __init__(self, instructions: dict[str, Instruction], where: dict[str, Place]):
        self.instructions, self.where = instructions, where
        self.names = [name for name, each in instructions.items() if each.kind not in VIEWS]
        self.numbers = {name: number for number, name in enumerate(self.names)}

    def lies(self, name: str, index: tuple[int, ...] = ()) -> list[Place]:
        """Where a value is, or what is at this index of a tuple, through all that only names it."""
        kind, operands = self.instructions[name].kind, self.instructions[name].operands
        if kind == "get-tuple-element":
            at = int(re.search(r"index=(\d+)", self.instructions[name].rest)[1])
            return self.lies(operands[0], (at, *index))
        if kind in ("bitcast", "opt-barrier"):
            return self.lies(operands[0], index)
        if kind == "tuple":
            inside = [operands[index[0]]] if index else operands
            return [place for each in inside for place in self.lies(each, index[1:])]
        key = f"{name}{{{','.join(map(str, index))}}}" if index else name
        parts = [place for other, place in self.where.items() if other.startswith(f"{key}{{")]
        return [self.where[key]] if key in self.where else parts

    def makers(self, name: str) -> set[int]:
        """Operations whose results it reads."""
        found, left = set(), list(self.instructions[name].operands)
        while left:
            each = left.pop()
            if each in self.numbers:
                found.add(self.numbers[each])
            else:
                left += self.instructions[each].operands
        return found

    def waits(self) -> tuple[list[set[int]], list[set[int]]]:
        """For each operation: whose results it needs, and whom else it waits for."""
        needs = [self.makers(name) for name in self.names]
        others, used = [], collections.defaultdict(list)  # allocation -> (place, number, written)
        for number, name in enumerate(self.names):
            reads = [at for each in self.instructions[name].operands for at in self.lies(each)]
            writes, found = self.lies(name), set()
            for place, is_written in [(at, False) for at in reads] + [(at, True) for at in writes]:
                for at, other, written in used[place.allocation]:
                    if (written or is_written) and other != number and place.overlaps(at):
                        found.add(other)
            for place in writes:  # what lay there is forgotten: who comes later waits for this one
                inside = lambda at, whole=place: whole.start <= at.start and at.stop <= whole.stop
                kept = [each for each in used[place.allocation] if not inside(each[0])]
                used[place.allocation] = [*kept, (place, number, True)]
            for place in reads:
                used[place.allocation].append((place, number, False))
            others.append(found - needs[number])
        return needs, others


def longest(before: list[set[int]], took: list[float]) -> tuple[float, list[int]]:
    """The time of the longest chain, each operation after those before it, and what is in it."""
    ended, last = [], []
    for number, each in enumerate(before):
        last.append(max(each, key=ended.__getitem__, default=None))
        ended.append(took[number] + (ended[last[-1]] if each else 0.0))
    chain = [max(range(len(ended)), key=ended.__getitem__)]
    while last[chain[-1]] is not None:
        chain.append(last[chain[-1]])
    return ended[chain[0]], chain[::-1]


def times(trace: Path) -> dict[str, float]:
    """Mean milliseconds of every operation in a profiler's trace."""
    (path,) = trace.rglob("*.trace.json.gz")
    took = collections.defaultdict(list)
    for event in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]:
        if "hlo_op" in event.get("args", {}) and event.get("ph") == "X":
            took[event["args"]["hlo_op"]].append(event["dur"] / 1e3)
    return {name: sum(each) / len(each) for name, each in took.items()}


def one_by_one(_: int, steps: list, kernels: list) -> list:
    """`winograd.products` as it would be without its order of gradients."""
    return list(map(transposed.dot, steps, kernels))


def step_of(case: dict, dump: Path) -> dict:
    """What `dump` and a trace say of a training step: milliseconds, and how many operations."""
    written = set(dump.iterdir())
    call, _ = ours.prepare(case)
    for _ in range(CALLS):
        call()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(CALLS):
                call()
        found = times(Path(folder))
    (text,) = set(dump.glob(f"*{PROGRAM}.cpu_after_optimizations.txt")) - written
    buffers = text.with_name(f"{text.stem}-buffer-assignment.txt")
    step = Step(body(text.read_text()), places(buffers.read_text()))
    needs, others = step.waits()
    took = [found.get(name, 0.0) for name in step.names]
    needs_ms, _ = longest(needs, took)
    waits_ms, chain = longest([a | b for a, b in zip(needs, others)], took)
    return {
        "operations": len(took),
        "all_ms": sum(took),
        "needs_ms": needs_ms,
        "waits_ms": waits_ms,
        "waits": sum(first in others[then] for first, then in itertools.pairwise(chain)),
    }


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DUMP.format(folder)}"
        runtime.set_up()
        jax.config.update("jax_enable_compilation_cache", False)  # what is loaded writes no text
        case, found = cases.training("unet_small"), {}
        with mock.patch.object(winograd, "products", one_by_one):
            found["one by one"] = step_of(case, Path(folder))
        found["in order"] = step_of(case, Path(folder))
    print("| products | all, ms | longest chain, ms | with waits for memory, ms | waits in it |")
    print("|---|---|---|---|---|")
    for name, row in found.items():
        numbers = (f"{row[key]:.1f}" for key in ("all_ms", "needs_ms", "waits_ms"))
        print(f"| {name} | {' | '.join(numbers)} | {row['waits']} |")
    result = {"rows": found, **provenance.provenance()}
    (HERE / "waits.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    errors.run(main)
