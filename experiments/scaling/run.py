"""The arithmetic of one training step, and what more devices cost where there are none.

    python -m experiments.scaling.run

Flops, bytes and the sums between devices are those of the compiled program; the steps are
timed on 1, 2, 4 and 8 devices that XLA makes of the same cores: the batch is the same, so
what they take longer is what the splitting costs. Stop other work meanwhile.
"""

import argparse
import json
import os
from pathlib import Path
import re
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from configs import pusht_state, pusht_state_small
from dpjax.config import build
from dpjax.core import errors, runtime, spec
from dpjax.evaluation import provenance
from dpjax.runs import evaluators, training_run
from dpjax.training import parallel
from dpjax.training import state as states
from experiments import synthetic

HERE = Path(__file__).parent
CONFIGS = {"unet": pusht_state, "unet_small": pusht_state_small}
DEVICES, BATCH, STEPS, CALLS = (1, 2, 4, 8), 128, 5, 5
SPEC = spec.Spec({"keypoints": 18, "agent_pos": 2}, 2, "")


def training(name: str, batch: int):
    """(config, step, state, windows) at that batch."""
    config = CONFIGS[name].get_config()
    config.train.batch = batch
    data = synthetic.windows(config, SPEC)
    policy = build.policy(config, synthetic.normalizer(SPEC), SPEC)
    tx = build.optimizer(config)
    example = evaluators.first_batch(config, data, np.zeros(1, np.int32))
    state = jax.jit(lambda rng: states.create(policy.init(rng, example), tx))(jax.random.key(0))
    return config, training_run.stepper(config, policy, tx), state, data


def arithmetic(name: str) -> dict:
    """Parameters, flops and bytes of one step of the whole batch on one device."""
    batch = CONFIGS[name].get_config().train.batch
    config, step, state, data = training(name, batch)
    rows = np.arange(batch, dtype=np.int32)
    gathered = lambda: evaluators.first_batch(config, data, rows)
    one = jax.jit(lambda state: step(state, jax.random.key(1), gathered()))
    cost = one.lower(state).compile().cost_analysis()
    size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    return {
        "parameters": size(states.trained(state.params)),
        "state_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state)),
        "batch": batch,
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
    }


def timed(name: str, way: str) -> dict:
    """Seconds a step on this process's devices: of the calls after the first, the median."""
    config, step, state, data = training(name, BATCH)
    found = parallel.STRATEGIES[way](parallel.all_devices())
    call = training_run.caller(config, found, step)
    state, table = found.place((state, data.table))
    took = []
    for k in range(CALLS + 1):
        inputs = data.call_inputs(BATCH, 0, k * STEPS, STEPS)
        start = time.perf_counter()
        state, metrics = call(state, jax.random.key(1), table, inputs)
        took.append((time.perf_counter() - start) / STEPS)
    took = sorted(took[1:])
    return {
        "seconds": took[len(took) // 2],
        "fastest_and_slowest": [took[0], took[-1]],
        "loss": float(metrics["loss"][-1]),
    }


def all_reduced(text: str) -> int:
    """Bytes that a program's all-reduces add up; text: the optimized HLO."""
    total = 0
    text = re.sub(r"/\*.*?\*/", "", text)  # long tuples number their parts in comments
    for shapes in re.findall(r"= (\(?[^=]*?) all-reduce(?:-start)?\(", text):
        for dims in re.findall(r"f32\[([\d,]*)\]", shapes):
            total += 4 * int(np.prod([int(n) for n in dims.split(",") if n]))
    return total


def child(devices: int, *task: str, dump: Path | None = None) -> dict:
    """`timed` in a process with so many devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    if dump:
        flags += f" --xla_dump_to={dump} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=jit_"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "experiments.scaling.run", "--task", ",".join(task)]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def reduced_bytes(name: str, way: str, folder: Path) -> int:
    """Bytes of one step's all-reduces between two devices, from the compiled program."""
    child(2, name, way, dump=folder)
    programs = folder.glob("*.cpu_after_optimizations.txt")
    return max(all_reduced(path.read_text()) for path in programs)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.scaling.run")
    parser.add_argument("--task", help="name,way: time it in this process, print JSON")
    given = parser.parse_args().task
    if given:
        print(json.dumps(timed(*given.split(","))))
        return 0
    result = {"arithmetic": {name: arithmetic(name) for name in CONFIGS}, "steps": []}
    for name, row in result["arithmetic"].items():
        print(f"{name}: {row}", flush=True)
    result["all_reduce_bytes"] = {}
    for way in parallel.STRATEGIES:
        with tempfile.TemporaryDirectory() as folder:
            result["all_reduce_bytes"][way] = reduced_bytes("unet_small", way, Path(folder))
        for devices in DEVICES:
            row = {"way": way, "devices": devices, **child(devices, "unet_small", way)}
            result["steps"].append(row)
            print(f"| {way} | {devices} | {row['seconds']:.3f} |", flush=True)
    result.update(provenance.provenance())
    (HERE / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    runtime.set_up()  # as every command of dpjax
    errors.run(main)
