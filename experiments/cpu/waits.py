"""Which operations of a training step on a CPU wait for memory, though they could run together.

    python -m experiments.cpu.waits

XLA's CPU backend starts an operation once everything it reads is written, on either thread. But
temporaries share memory: an operation that is listed after the last reader of a buffer may be
written into that buffer, and then has to wait for the reader, even if it needs nothing from it.

This compiles and traces the small U-Net's training step twice, with the products of convolutions
in XLA's own order and in that of `winograd.pointwise_products`. It reads in XLA's text where each
value lies in memory, and writes waits.json: the time of all operations, of the longest chain of
operations that need each other's results, and of the longest chain with waits for memory too.
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
CALLS = 2  # in the trace
PROGRAM = "jit_call"  # of `runs.steps.compiled_call`
DUMP = f"--xla_dump_to={{}} --xla_dump_hlo_as_text --xla_dump_hlo_module_re={PROGRAM}.*"
# Instructions that only name a value of another one: nothing runs for them.
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
        """Names of the values that it reads: those before its closing bracket."""
        depth = 1
        for at, letter in enumerate(self.rest):
            depth += {"(": 1, ")": -1}.get(letter, 0)
            if not depth:
                return re.findall(r"%([\w.\-]+)", self.rest[:at])
        raise ValueError(f"no end of the operands of {self.kind}({self.rest[:80]}…")


def body(text: str) -> dict[str, Instruction]:
    """The longest computation of a program, which is a training step, in XLA's order."""
    computations = collections.defaultdict(dict)
    current = None
    for line in text.splitlines():
        if not line.startswith(" "):
            match = COMPUTATION.match(line)
            current = match and match[1]
        elif current and (match := INSTRUCTION.match(line)):
            computations[current][match[1]] = Instruction(match[2], match[3])
    return max(computations.values(), key=len)


def places(text: str) -> dict[str, Place]:
    """Where values lie in memory; those inside tuples are called name{index}."""
    values = {}
    allocation = None
    for line in text.splitlines():
        if match := ALLOCATION.match(line):
            allocation = int(match[1])
        elif match := VALUE.match(line):
            size = int(match[2])
            start = int(match[3])
            name = match[1].removesuffix(" (phi)")
            values.setdefault(name, Place(allocation, start, start + size))
    return values


class Step:
    """Operations of a training step in XLA's order, and what each waits for."""

    def __init__(self, instructions: dict[str, Instruction], where: dict[str, Place]):
        self.instructions = instructions
        self.where = where
        self.names = [name for name, each in instructions.items() if each.kind not in VIEWS]
        self.numbers = {name: number for number, name in enumerate(self.names)}

    def lies(self, name: str, index: tuple[int, ...] = ()) -> list[Place]:
        """Where a value lies, or the part of a tuple at this index; VIEWS are followed."""
        kind = self.instructions[name].kind
        operands = self.instructions[name].operands
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
        """The operations whose results it reads, by number."""
        numbers = set()
        left = list(self.instructions[name].operands)
        while left:
            each = left.pop()
            if each in self.numbers:
                numbers.add(self.numbers[each])
            else:
                left += self.instructions[each].operands
        return numbers

    def waits(self) -> tuple[list[set[int]], list[set[int]]]:
        """For each operation: those whose results it needs, and others that it waits for."""
        needs = [self.makers(name) for name in self.names]
        others = []
        used = collections.defaultdict(list)  # {allocation: [(place, number, is written)]}
        for number, name in enumerate(self.names):
            reads = [at for each in self.instructions[name].operands for at in self.lies(each)]
            writes = self.lies(name)
            waited = set()
            # Overlapping places: a write waits for all that used them, a read for writes.
            for place, is_written in [(at, False) for at in reads] + [(at, True) for at in writes]:
                for at, other, written in used[place.allocation]:
                    if (written or is_written) and other != number and place.overlaps(at):
                        waited.add(other)
            # Earlier uses of what is overwritten are forgotten: later operations wait for this one.
            for place in writes:
                inside = lambda at, p=place: p.start <= at.start and at.stop <= p.stop
                kept = [each for each in used[place.allocation] if not inside(each[0])]
                used[place.allocation] = [*kept, (place, number, True)]
            for place in reads:
                used[place.allocation].append((place, number, False))
            others.append(waited - needs[number])
        return needs, others


def longest(before: list[set[int]], took: list[float]) -> tuple[float, list[int]]:
    """(time of the longest chain of operations, its operations by number).

    before: for each operation, those that have to end before it starts. took: milliseconds.
    """
    ended = []
    last = []
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


def products_in_any_order(_: int, steps: list, kernels: list) -> list:
    """`winograd.pointwise_products` without its order of gradients."""
    return list(map(transposed.dot, steps, kernels))


def step_of(case: dict, dump: Path) -> dict:
    """Milliseconds and number of operations of a training step, from `dump` and a trace."""
    written = set(dump.iterdir())
    call, _ = ours.prepare(case)
    for _ in range(CALLS):
        call()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(CALLS):
                call()
        durations = times(Path(folder))
    (text,) = set(dump.glob(f"*{PROGRAM}.cpu_after_optimizations.txt")) - written
    buffers = text.with_name(f"{text.stem}-buffer-assignment.txt")
    step = Step(body(text.read_text()), places(buffers.read_text()))
    needs, others = step.waits()
    took = [durations.get(name, 0.0) for name in step.names]
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
        # Only compiling writes XLA's text: nothing may come from the cache.
        jax.config.update("jax_enable_compilation_cache", False)
        case = cases.training("unet_small")
        rows = {}
        with mock.patch.object(winograd, "pointwise_products", products_in_any_order):
            rows["one by one"] = step_of(case, Path(folder))
        rows["in order"] = step_of(case, Path(folder))
    print("| products | all, ms | longest chain, ms | with waits for memory, ms | waits in it |")
    print("|---|---|---|---|---|")
    for name, row in rows.items():
        numbers = (f"{row[key]:.1f}" for key in ("all_ms", "needs_ms", "waits_ms"))
        print(f"| {name} | {' | '.join(numbers)} | {row['waits']} |")
    result = {"rows": rows, **provenance.provenance()}
    (HERE / "waits.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    errors.run(main)
