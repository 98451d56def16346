"""dpjax's side: `python -m experiments.throughput.ours`, driven by `experiments.throughput`."""

import math
import os
from unittest import mock

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

from configs import pusht_image, pusht_state, pusht_state_transformer
from dpjax.config import build
from dpjax.core import runtime
from dpjax.core.spec import Spec
from dpjax.evaluation.provenance import machine
from dpjax.ops import conv1d, transposed
from dpjax.runs import evaluators, training_run
from dpjax.training import parallel
from dpjax.training import state as states
from experiments import synthetic
from experiments.throughput import worker
from experiments.throughput.cases import NETWORKS

# config.train.steps_per_call: that of the small U-Net's config, else "about 2 s at most".
STEPS_A_CALL = {"unet_small": 10, "unet_65m": 4, "image": 4, "transformer": 4}


def configured(case: dict):
    """The config of a case, and the sizes of its data."""
    sizes = dict(NETWORKS[case["network"]])
    camera = sizes.pop("camera", False)
    module = pusht_state if "widths" in sizes else pusht_state_transformer
    config = (pusht_image if camera else module).get_config()
    for key, value in sizes.items():
        config.denoiser[key] = value
    config.sampler.name = case.get("sampler", "ddpm")
    config.sampler.num_steps = case.get("steps", 100)
    if config.sampler.name == "meanflow":  # a method of training, of which Euler's is the step
        config.method, config.predict, config.sampler.name = "meanflow", "velocity", "euler"
        config.schedule.name, config.schedule.num_levels = "flow", 1
    config.train.batch = case["batch"]
    seen = {"image": (96, 96, 3)} if camera else {"keypoints": 18}
    return config, Spec({**seen, "agent_pos": 2}, 2, "")


def prepare(case: dict):
    """(call, facts) of `worker.serve`."""
    if case["kind"] == "ceiling":
        return ceiling(case)
    config, spec = configured(case)
    data = synthetic.windows(config, spec)
    policy = build.policy(config, synthetic.normalizer(spec), spec)
    example = evaluators.first_batch(config, data, np.arange(case["batch"], dtype=np.int32))
    params = jax.jit(policy.init)(jax.random.key(0), example)
    sizes = {key: count(params[key]) for key in ("encoder", "denoiser")}
    facts = {"parameters": sum(sizes.values()), "device": jax.devices()[0].device_kind}
    facts["machine"] = machine()  # the devices are this process's own, and not the parent's
    if case["kind"] == "train":
        facts["steps_a_call"] = steps = STEPS_A_CALL[case["network"]]
        if not spec.cameras:  # most of a camera's operations are 2-D convolutions
            if jax.default_backend() == "cpu":  # elsewhere no product is saved
                facts["made_flops"] = training_flops(policy, params, example)
            with mock.patch.object(conv1d, "conv_cpu", conv1d.conv_taps):
                facts["matmul_flops"] = training_flops(policy, params, example)
        return trainer(config, policy, params, data, steps), facts
    facts["loop_parameters"] = loop_parameters(params["denoiser"])
    act, params = jax.jit(policy.sample), transposed.inference_params(params, [jax.default_backend()])
    obs = {key: np.asarray(x) for key, x in example.obs.items()}
    key = jax.random.key(1)
    return lambda: np.asarray(act(params, key, obs)), facts


def trainer(config, policy, params, data, steps: int):
    """One call is `steps` optimizer steps, as `dpjax.train` makes them, with the EMA."""
    tx = build.optimizer(config)
    strategy = parallel.STRATEGIES[config.train.parallel](parallel.all_devices())
    call = training_run.caller(config, strategy, training_run.stepper(config, policy, tx))
    held, table = [strategy.place(states.create(params, tx))], strategy.place(data.table)
    inputs = data.call_inputs(config.train.batch, 0, 0, steps)

    def one():
        held[0], metrics = call(held[0], jax.random.key(2), table, inputs)
        jax.block_until_ready(metrics)

    return one


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def loop_parameters(params) -> int:
    """Weights that every sampling step reads: the modulation is made once a plan."""
    once = ("film", "time_in", "time_out", "span_in", "span_out")
    once += ("obs_in", "memory_up", "memory_down", "memory_kv")
    return sum(count(leaf) for key, leaf in params.items() if not key.startswith(once))


def training_flops(policy, params, batch) -> float:
    """Operations of all matrix products of a loss and its gradient, as they are made.

    `conv_taps` makes those that define a convolution: none with padding, and none saved.
    """
    total = lambda weights: policy.loss({**params, **weights}, jax.random.key(0), batch)[0]
    weights = {key: params[key] for key in ("encoder", "denoiser")}
    return products(jax.make_jaxpr(jax.grad(total))(weights).jaxpr)


def products(jaxpr) -> float:
    """2 M N K of every dot_general; of a choice by platform the CPU's."""
    flops = 0.0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            shape = eqn.invars[0].aval.shape
            flops += (
                2
                * math.prod(eqn.outvars[0].aval.shape)
                * math.prod(shape[axis] for axis in contracted)
            )
            continue
        inner = [products(sub) for sub in jax.extend.core.jaxprs_in_params(eqn.params)]
        platforms = eqn.params.get("branches_platforms") or ()  # the last is None: all others
        chosen = [some is None or "cpu" in some for some in platforms]
        flops += inner[chosen.index(True)] if chosen else sum(inner)
    return flops


def ceiling(case: dict):
    """What the machine can do at all: a large product, or the sum of a large array."""
    large = 4 if jax.default_backend() != "cpu" else 1  # else a call is mostly its start
    if case["name"] == "sgemm":
        size = 2048 * large
        a, b = (jax.random.normal(jax.random.key(seed), (size, size)) for seed in (0, 1))
        run, amount = jax.jit(jnp.matmul), 2.0 * size**3
    else:
        size = 2**28 * large  # 1 GiB, far beyond any cache
        a, b = jnp.ones(size, jnp.float32), jnp.float32(1)
        run, amount = jax.jit(lambda a, b: jnp.sum(a) * b), 4.0 * size
    return lambda: run(a, b).block_until_ready(), {"amount": amount}


def peak() -> int:
    """Bytes, of the accelerator where there is one."""
    stats = jax.devices()[0].memory_stats()  # None of a CPU
    return stats["peak_bytes_in_use"] if stats else worker.host_peak()


def serve(prepare=prepare) -> None:
    """`worker.serve` of dpjax's side."""
    runtime.set_up()  # as every command of dpjax
    # Others share the accelerator, and wait meanwhile.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    worker.serve(prepare, peak)


if __name__ == "__main__":
    serve()
