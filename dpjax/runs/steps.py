"""The compiled program of a training: several optimizer steps per call."""

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

# The call that is traced: call 0 compiles, call 1 may still touch new memory.
TRACED_CALL = 2

log = logging.getLogger("dpjax")


@names_keys(rows="train.batch", parts="train.accumulate")
def check_devices(batch: int, accumulate: int, num_devices: int) -> None:
    """Raises UserError if the devices cannot split a global batch evenly, or a device its part."""
    parallel.check_batch(batch, num_devices)
    check_accumulation(batch // num_devices, accumulate)


def check_profile(num_steps: int, steps_per_call: int) -> None:
    """Raises UserError if a start that has `num_steps` left ends before the call to be traced."""
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
    """`step(state, rng, batch, axis=None) -> (state, metrics)`: one optimizer step.

    ema: the section config.ema. grad_clip, accumulate: see `train_step`.
    """
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
    """`gather(table, inputs, index) -> Batch`, to be called inside the compiled program."""
    return functools.partial(loader.gather, num_observed=windows.observed.shape[1])


def compiled_call(
    strategy: parallel.Strategy, step: Callable, gather: Callable, *, has_cameras: bool
) -> parallel.Call:
    """`call(state, rng, table, inputs) -> (state, metrics)`: steps on the windows of the inputs.

    They are one program, a loop over its steps. With cameras on a CPU each step is a program of
    its own, since XLA's CPU is slow at convolutions in loops (`parallel.one_by_one`).
    """
    # The strategy compiles on the first call, for the devices that it was made for.
    call = strategy.repeat(step, gather)
    is_slow = has_cameras and jax.default_backend() == "cpu"
    return parallel.one_by_one(call) if is_slow else call


def profiled(call: parallel.Call, folder: Path) -> parallel.Call:
    """`call`, whose third execution is traced by `jax.profiler` into the folder."""
    count = itertools.count()

    def run(*inputs):
        if next(count) != TRACED_CALL:
            return call(*inputs)
        with jax.profiler.trace(str(folder), create_perfetto_trace=True):
            result = jax.block_until_ready(call(*inputs))
        log.info("traced one call: %s (tensorboard --logdir, or ui.perfetto.dev)", folder)
        return result

    return run
