"""dpjax's side: `python -m experiments.throughput.ours`, started by `experiments.throughput`."""

import math
import os
from unittest import mock

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

from dpjax.config import build, dataset, recipes
from dpjax.core import runtime
from dpjax.core.spec import Spec
from dpjax.evaluation.provenance import machine
from dpjax.ops import conv1d, transposed
from dpjax.runs import steps as step_lib
from dpjax.training import parallel
from dpjax.training import state as states
from experiments import synthetic
from experiments.throughput import worker
from experiments.throughput.cases import NETWORKS

# Optimizer steps per compiled call (config.train.steps_per_call): as in the small U-Net's recipe;
# for the others about 2 s per call.
STEPS_PER_CALL = {"unet_small": 10, "unet_65m": 4, "image": 4, "transformer": 4}


def configured(case: dict):
    """The config of a case, and the spec of its data."""
    sizes = dict(NETWORKS[case["network"]])
    camera = sizes.pop("camera", False)
    unet = "pusht_image" if camera else "pusht_state"
    config = recipes.load(unet if "widths" in sizes else "pusht_state_transformer")
    config.denoiser.update(sizes)
    config.sampler.name = case.get("sampler", "ddpm")
    config.sampler.num_steps = case.get("steps", 100)
    if config.sampler.name == "meanflow":  # a training method, sampled by Euler steps
        config.method = "meanflow"
        config.predict = "velocity"
        config.sampler.name = "euler"
        config.schedule.name = "flow"
        config.schedule.num_levels = 1
    config.train.batch = case["batch"]
    observed = {"image": (96, 96, 3)} if camera else {"keypoints": 18}
    return config, Spec({**observed, "agent_pos": 2}, 2, "")


def prepare(case: dict):
    """(call, facts) for `worker.serve`."""
    if case["kind"] == "ceiling":
        return ceiling(case)
    config, spec = configured(case)
    data = synthetic.windows(config, spec)
    policy = build.policy(config, synthetic.normalizer(spec), spec)
    example = dataset.batch_of(data, np.arange(case["batch"], dtype=np.int32))
    params = jax.jit(policy.init)(jax.random.key(0), example)
    sizes = {key: count(params[key]) for key in ("encoder", "denoiser")}
    facts = {"parameters": sum(sizes.values()), "device": jax.devices()[0].device_kind}
    facts["machine"] = machine()  # asked here, since the parent process may see other devices

    if case["kind"] == "train":
        steps = STEPS_PER_CALL[case["network"]]
        facts["steps_a_call"] = steps
        # With a camera most operations are 2-D convolutions, which are not counted.
        if not spec.cameras:
            if jax.default_backend() == "cpu":  # elsewhere no product is saved
                facts["made_flops"] = training_flops(policy, params, example)
            with mock.patch.object(conv1d, "conv_cpu", conv1d.conv_taps):
                facts["matmul_flops"] = training_flops(policy, params, example)
        return trainer(config, policy, params, data, steps), facts

    facts["loop_parameters"] = loop_parameters(params["denoiser"])
    sample = jax.jit(policy.sample)
    params = transposed.inference_params(params, [jax.default_backend()])
    obs = {key: np.asarray(x) for key, x in example.obs.items()}
    key = jax.random.key(1)
    return lambda: np.asarray(sample(params, key, obs)), facts


def trainer(config, policy, params, data, steps: int):
    """A call that makes `steps` optimizer steps as `dpjax.train` does, with averaged weights."""
    tx = build.optimizer(config)
    strategy = parallel.STRATEGIES[config.train.parallel](parallel.all_devices())
    step = step_lib.step_function(
        policy, tx, config.ema, config.optim.grad_clip, config.train.accumulate
    )
    gather = step_lib.gather_function(data)
    call = step_lib.compiled_call(strategy, step, gather, has_cameras=bool(config.cameras))
    state = strategy.place(states.create(params, tx))
    table = strategy.place(data.table)
    inputs = data.call_inputs(config.train.batch, 0, 0, steps)

    def train():
        nonlocal state
        state, metrics = call(state, jax.random.key(2), table, inputs)
        jax.block_until_ready(metrics)

    return train


def count(tree) -> int:
    """The numbers in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def loop_parameters(params) -> int:
    """Weights that each sampling step reads; the others are read once per action chunk."""
    once = ("film", "time_in", "time_out", "span_in", "span_out")  # the modulation
    once += ("obs_in", "memory_up", "memory_down", "memory_kv")
    return sum(count(leaf) for key, leaf in params.items() if not key.startswith(once))


def training_flops(policy, params, batch) -> float:
    """Operations of all matrix products in a loss and its gradient, as the program makes them.

    With `conv_taps` these are the products that define a convolution: none with padding, and none
    saved by a faster algorithm.
    """
    total = lambda weights: policy.loss({**params, **weights}, jax.random.key(0), batch)[0]
    weights = {key: params[key] for key in ("encoder", "denoiser")}
    return products(jax.make_jaxpr(jax.grad(total))(weights).jaxpr)


def products(jaxpr) -> float:
    """2 M N K summed over all dot_general; where a program depends on the platform, the CPU's."""
    flops = 0.0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            shape = eqn.invars[0].aval.shape
            terms = math.prod(shape[axis] for axis in contracted)
            flops += 2 * math.prod(eqn.outvars[0].aval.shape) * terms
            continue
        inner = [products(sub) for sub in jax.extend.core.jaxprs_in_params(eqn.params)]
        # None among the platforms stands for all others.
        platforms = eqn.params.get("branches_platforms") or ()
        chosen = [names is None or "cpu" in names for names in platforms]
        flops += inner[chosen.index(True)] if chosen else sum(inner)
    return flops


def ceiling(case: dict):
    """What the machine can do at best: a large matrix product, or the sum of a large array."""
    # An accelerator needs larger arrays, or a call is mostly its start.
    large = 4 if jax.default_backend() != "cpu" else 1
    if case["name"] == "sgemm":
        size = 2048 * large
        a, b = (jax.random.normal(jax.random.key(seed), (size, size)) for seed in (0, 1))
        run = jax.jit(jnp.matmul)
        amount = 2.0 * size**3  # FLOP
    else:
        size = 2**28 * large  # 1 GiB, far beyond any cache
        a = jnp.ones(size, jnp.float32)
        b = jnp.float32(1)
        run = jax.jit(lambda a, b: jnp.sum(a) * b)
        amount = 4.0 * size  # bytes
    return lambda: run(a, b).block_until_ready(), {"amount": amount}


def peak() -> int:
    """The largest memory in use, bytes: the accelerator's if there is one."""
    stats = jax.devices()[0].memory_stats()  # None on a CPU
    return stats["peak_bytes_in_use"] if stats else worker.host_peak()


def serve(prepare=prepare) -> None:
    """`worker.serve` for dpjax's side."""
    runtime.set_up()  # as each command of dpjax
    # The other sides keep their share of the accelerator's memory while they wait.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    worker.serve(prepare, peak)


if __name__ == "__main__":
    serve()
