"""The arithmetic of one training step, and what splitting it over devices costs.

    python -m experiments.scaling.run

Flops, bytes and the sums between devices come from the compiled program. Steps are timed on 1, 2, 4
and 8 devices that XLA makes of the same cores. The batch is the same, so any additional time is the
cost of splitting it. Stop other work meanwhile.
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

from dpjax.config import build, dataset, recipes
from dpjax.core import errors, runtime, spec
from dpjax.evaluation import provenance
from dpjax.runs import steps
from dpjax.training import parallel
from dpjax.training import state as states
from experiments import synthetic

HERE = Path(__file__).parent
RECIPES = {"unet": "pusht_state", "unet_small": "pusht_state_small"}
DEVICES = (1, 2, 4, 8)
BATCH = 128
STEPS = 5  # per call
CALLS = 5  # timed, after one that compiles
SPEC = spec.Spec({"keypoints": 18, "agent_pos": 2}, 2, "")


def training(name: str, batch: int):
    """(config, step, state, windows) of a recipe, at another batch size."""
    config = recipes.load(RECIPES[name])
    config.train.batch = batch
    data = synthetic.windows(config, SPEC)
    policy = build.policy(config, synthetic.normalizer(SPEC), SPEC)
    tx = build.optimizer(config)
    example = dataset.batch_of(data, np.zeros(1, np.int32))
    state = jax.jit(lambda rng: states.create(policy.init(rng, example), tx))(jax.random.key(0))
    return (
        config,
        steps.step_function(
            policy, tx, config.ema, config.optim.grad_clip, config.train.accumulate
        ),
        state,
        data,
    )


def arithmetic(name: str) -> dict:
    """Parameters, flops and bytes of one step of the batch on one device."""
    batch = recipes.load(RECIPES[name]).train.batch
    config, step, state, data = training(name, batch)
    ids = np.arange(batch, dtype=np.int32)
    gathered = lambda: dataset.batch_of(data, ids)
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


def timed(name: str, strategy_name: str) -> dict:
    """Seconds per step on this process's devices: the median of the calls after the first."""
    config, step, state, data = training(name, BATCH)
    strategy = parallel.STRATEGIES[strategy_name](parallel.all_devices())
    gather = steps.gather_function(data)
    call = steps.compiled_call(strategy, step, gather, has_cameras=bool(config.cameras))
    state, table = strategy.place((state, data.table))
    seconds = []
    for k in range(CALLS + 1):
        inputs = data.call_inputs(BATCH, 0, k * STEPS, STEPS)
        start = time.perf_counter()
        state, metrics = call(state, jax.random.key(1), table, inputs)
        seconds.append((time.perf_counter() - start) / STEPS)
    seconds = sorted(seconds[1:])
    return {
        "seconds": seconds[len(seconds) // 2],
        "fastest_and_slowest": [seconds[0], seconds[-1]],
        "loss": float(metrics["loss"][-1]),
    }


def all_reduced(text: str) -> int:
    """Bytes that the all-reduces of a program add up. text: its optimized HLO."""
    total = 0
    text = re.sub(r"/\*.*?\*/", "", text)  # long tuples number their parts in comments
    for shapes in re.findall(r"= (\(?[^=]*?) all-reduce(?:-start)?\(", text):
        for dims in re.findall(r"f32\[([\d,]*)\]", shapes):
            total += 4 * int(np.prod([int(n) for n in dims.split(",") if n]))
    return total


def child(devices: int, *task: str, dump: Path | None = None) -> dict:
    """`timed` in a process with that many devices. dump: where XLA writes its programs."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    if dump:
        flags += f" --xla_dump_to={dump} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=jit_"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "experiments.scaling.run", "--task", ",".join(task)]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def reduced_bytes(name: str, strategy: str, folder: Path) -> int:
    """Bytes of one step's all-reduces between two devices, from the compiled program."""
    child(2, name, strategy, dump=folder)
    programs = folder.glob("*.cpu_after_optimizations.txt")
    return max(all_reduced(path.read_text()) for path in programs)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.scaling.run")
    parser.add_argument("--task", help="name,strategy: time it in this process, print JSON")
    task = parser.parse_args().task
    if task:
        print(json.dumps(timed(*task.split(","))))
        return 0
    result = {"arithmetic": {name: arithmetic(name) for name in RECIPES}, "steps": []}
    for name, row in result["arithmetic"].items():
        print(f"{name}: {row}", flush=True)
    result["all_reduce_bytes"] = {}
    for strategy in parallel.STRATEGIES:
        with tempfile.TemporaryDirectory() as folder:
            result["all_reduce_bytes"][strategy] = reduced_bytes(
                "unet_small", strategy, Path(folder)
            )
        for devices in DEVICES:
            # "way" is the key of earlier results.
            row = {"way": strategy, "devices": devices, **child(devices, "unet_small", strategy)}
            result["steps"].append(row)
            print(f"| {strategy} | {devices} | {row['seconds']:.3f} |", flush=True)
    result.update(provenance.provenance())
    (HERE / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    runtime.set_up()  # as every command of dpjax
    errors.run(main)
