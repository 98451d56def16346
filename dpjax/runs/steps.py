"""Builds the compiled program of a training, which does several optimizer steps per call."""

from collections.abc import Callable
import functools
import itertools
import logging
from pathlib import Path

import jax
from ml_collections import ConfigDict
import optax

from dpjax.config.arguments import names_keys
from dpjax.core.errors import UserError
from dpjax.data import loader
from dpjax.policies.base import Policy
from dpjax.training import parallel
from dpjax.training.step import check_accumulation, train_step

# Index of the call that --profile traces. Call 0 compiles, and call 1 may still allocate memory.
TRACED_CALL = 2

log = logging.getLogger("dpjax")


@names_keys()
def check_devices(batch: int, accumulate: int, num_devices: int) -> None:
    """Raises UserError if a global batch cannot be split evenly over devices and parts.

    accumulate: the number of parts in which each device computes its share of the batch.
    """
    parallel.check_batch(batch, num_devices)
    check_accumulation(batch // num_devices, accumulate)


def check_profile(num_steps: int, steps_per_call: int) -> None:
    """Raises UserError if the `num_steps` left end before the call that is traced."""
    # The last call may have fewer steps than the others.
    num_calls = -(-num_steps // steps_per_call)  # rounded up
    if num_calls <= TRACED_CALL:
        raise UserError(
            f"--profile traces call {TRACED_CALL + 1} of this start, and {max(num_calls, 0)} of "
            f"config.train.steps_per_call={steps_per_call} steps are left: raise "
            "config.train.steps, or choose another workdir."
        )


def step_function(
    policy: Policy,
    optimizer: optax.GradientTransformation,
    ema: ConfigDict,
    grad_clip: float,
    accumulate: int,
) -> Callable:
    """A function `step(state, rng, batch, axis=None) -> (state, metrics)`: one optimizer step.

    ema: the section config.ema. grad_clip, accumulate: see `train_step`.
    """
    # `axis` stays open: the strategy gives the name of the mapped axis to average gradients over.
    return functools.partial(
        train_step,
        policy,
        optimizer,
        ema_power=ema.power,
        ema_max=ema.max,
        grad_clip=grad_clip,
        accumulate=accumulate,
    )


def gather_function(windows: loader.Windows) -> Callable:
    """A function `gather(table, inputs, index) -> Batch` for the compiled program."""
    # Only positions in the table are sent to the device per call; the steps are gathered there.
    return functools.partial(loader.gather, num_observed=windows.observed.shape[1])


def compiled_call(
    strategy: parallel.Strategy, step: Callable, gather: Callable, *, has_cameras: bool
) -> parallel.Call:
    """A function `call(state, rng, table, inputs) -> (state, metrics)` that does several steps.

    inputs: for each step, the windows of its batch.
    """
    # One program with a loop over the steps. The first call compiles it.
    call = strategy.repeat(step, gather)
    # XLA's CPU backend is slow at convolutions in a loop: there each step is a program by itself.
    is_slow = has_cameras and jax.default_backend() == "cpu"
    return parallel.one_by_one(call) if is_slow else call


def profiled(call: parallel.Call, folder: Path) -> parallel.Call:
    """A function like `call` that writes a `jax.profiler` trace of its third execution."""
    count = itertools.count()

    def run(*inputs):
        if next(count) != TRACED_CALL:
            return call(*inputs)
        # JAX returns before the device is done, so the trace waits for the results.
        with jax.profiler.trace(str(folder), create_perfetto_trace=True):
            result = jax.block_until_ready(call(*inputs))
        log.info("traced one call: %s (tensorboard --logdir, or ui.perfetto.dev)", folder)
        return result

    return run
