"""Loads a trained policy: `dpjax.load` returns a `Run`.

run = dpjax.load("runs/demo")                      # or the name of a shipped policy
actions = run.sample_actions(key, observations)    # {name: [B, To, …]} -> [B, Tp, Da]

controller = run.controller(jax.random.key(0))     # for a robot, one step at a time
action = controller.act({name: observation})       # {name: [D]} -> [Da]
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict
import numpy as np

from dpjax import tasks
from dpjax.config import build
from dpjax.core.errors import UserError, choices
from dpjax.core.spec import Spec
from dpjax.core.types import Params
from dpjax.inference.compiled import CompiledPolicy
from dpjax.inference.controller import Controller
from dpjax.ops.transposed import inference_params
from dpjax.policies.base import Policy
from dpjax.runs import outputs, shipped
from dpjax.runs.config_file import read_config
from dpjax.tasks.base import Task
from dpjax.training import checkpoint


class Run(NamedTuple):
    """A trained policy with its parameters and its config.

    policy: the pure functions of the policy.
    params: the trained parameters, for `policy`.
    inference_params: the same parameters in the layout of `compiled`.
    compiled: `policy.sample`, compiled once per batch size.
    config: the config of the training, with the sampler that `load` was asked for.
    spec: the names and sizes of observations and actions.
    step: the training step of the parameters.
    """

    policy: Policy
    params: Params
    inference_params: Params
    compiled: CompiledPolicy
    config: ConfigDict
    spec: Spec
    step: int

    def __repr__(self) -> str:
        """One line: the task, the training step, the sampler and the sizes."""
        # The repr of a NamedTuple would print all weights.
        sampler = self.config.sampler
        horizon = self.config.horizon
        return (
            f"Run(task={self.config.task!r}, step={self.step}, "
            f"sampler={sampler.name!r}, num_steps={sampler.num_steps}, "
            f"observations={self.spec.observations}, action={self.spec.action}, "
            f"observed={horizon.obs}, predicted={horizon.predict}, executed={horizon.act})"
        )

    @property
    def task(self) -> Task:
        """The task that the policy was trained for."""
        return tasks.get(self.config.task)

    def sample_actions(
        self,
        key: jax.Array,
        obs: Mapping[str, np.ndarray],
        previous: np.ndarray | None = None,
        committed: np.ndarray | None = None,
    ) -> np.ndarray:
        """Samples action chunks [B, Tp, Da], in the units of the data.

        key: one random key, or keys [B], one for each example.
        obs: {name: [B, To, …]} as in `spec.observations`: float32 numbers, uint8 images.
        previous: the last chunk, shifted to begin at the present step, [B, Tp, Da]; NaN for steps
            beyond its end. It is ignored unless config.sampler.warm_start is above 0 or
            config.sampler.agree is set.
        committed: int32 [B], how many actions of `previous`, from the present on, are executed
            whatever the new chunk says; None is 0. It is ignored unless config.sampler.agree is
            set.
        """
        # The first call with a new batch size compiles a program for it.
        return self.compiled(self.inference_params, key, obs, previous, committed)

    def controller(self, keys: jax.Array | None = None, *, delay: int = 0) -> Controller:
        """A new Controller, which keeps To observations and executes Ta actions of each chunk.

        keys: random keys for `Controller.reset`, which starts an episode: keys [B] for B robots, or
            one key for a single robot. With None the caller calls `reset`.
        delay: steps between an observation and the first action of its chunk.
        """
        # The controller of a robot knows the policy as the function `sample_actions` only.
        horizon = self.config.horizon
        controller = Controller(
            self.sample_actions, observed=horizon.obs, executed=horizon.act, delay=delay
        )
        if keys is not None:
            controller.reset(keys)
        return controller

    def warm_up(self, batch_sizes: Iterable[int] = (1,)) -> float:
        """Compiles `sample_actions` for these batch sizes; returns the seconds that it took.

        Without it the first call of `sample_actions` compiles, while the robot waits.
        """
        return self.compiled.compile(self.inference_params, batch_sizes)


def load(
    run: str | Path,
    *,
    sampler: str | None = None,
    steps: int | None = None,
    warm_start: float | None = None,
    agree: str | None = None,
    which: str = "ema",
    step: int | None = None,
) -> Run:
    """Loads a run folder, or a policy that comes with dpjax.

    Args:
        run: a run folder, or the name of a shipped policy (`dpjax.runs.shipped.names()`).
        sampler, steps, warm_start, agree: replace sampler.name, sampler.num_steps,
            sampler.warm_start and sampler.agree of the run's config. None keeps the value of the
            config.
        which: "ema" for the averaged parameters, "raw" for the parameters of the optimizer.
        step: the training step to load; None for the newest valid checkpoint.

    Raises:
        UserError: if the run, the checkpoint or the sampler does not exist.
    """
    config, spec, params, at = _read(run, which, step)
    # The policy is built from the config, so that it has the sampler that was asked for.
    config = build.with_sampling(
        config, sampler=sampler, steps=steps, warm_start=warm_start, agree=agree
    )
    policy = build.policy(config, params["normalizer"], spec)
    # On the device once, not copied there by each call.
    params = jax.device_put(params)
    return Run(
        policy=policy,
        params=params,
        # A second copy: the fast layout depends on the device and on the kernels.
        inference_params=inference_params(params, [jax.default_backend()], config.compute.kernels),
        compiled=build.compiled_policy(config, policy, spec, params["normalizer"]),
        config=config,
        spec=spec,
        step=at,
    )


def _read(run: str | Path, which: str, step: int | None) -> tuple[ConfigDict, Spec, Params, int]:
    """(config, spec, params, step) of a run folder or of a shipped policy."""
    # A shipped policy has neither checkpoints nor raw parameters, so it ignores `which` and `step`.
    folder = outputs.shipped_folder(str(run))
    if folder is not None:
        return *read_config(folder), *shipped.load_params(folder)
    # A name without a slash may be a misspelled shipped policy, so the error lists these.
    is_name = len(Path(run).parts) == 1
    if is_name and not Path(run).exists():
        raise UserError(
            f"{run}: no such run folder, and no such policy comes with dpjax; "
            f"{choices(str(run), shipped.names())}."
        )
    return *read_config(run), *checkpoint.load_params(run, which=which, step=step)
