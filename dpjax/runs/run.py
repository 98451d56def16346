"""A trained policy, loaded: what `dpjax.load` returns.

run = dpjax.load("runs/demo")                      # or the name of a shipped policy
actions = run.sample_actions(key, observations)    # {name: [B, To, …]} -> [B, Tp, Da]

controller = run.controller(jax.random.key(0))     # for a robot, one step after the other
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

    policy: three pure functions.
    params: the trained parameters, for these functions.
    inference_params: the same numbers, in the layout that `compiled` takes.
    compiled: `policy.sample`, one compiled program per batch size.
    config: the config of the training, with the sampler that was asked for.
    spec: names and sizes of observations and actions.
    step: the training step that the parameters are of.
    """

    policy: Policy
    params: Params
    inference_params: Params
    compiled: CompiledPolicy
    config: ConfigDict
    spec: Spec
    step: int

    @property
    def task(self) -> Task:
        """The task that the policy was trained for."""
        return tasks.get(self.config.task)

    def sample_actions(
        self,
        key: jax.Array,
        obs: Mapping[str, np.ndarray],
        previous: np.ndarray | None = None,
    ) -> np.ndarray:
        """Samples action chunks [B, Tp, Da], in the units of the data.

        key: one random key, or keys [B], one for each example.
        obs: {name: [B, To, …]} as in `spec.observations`: float32 numbers, uint8 images.
        previous: the last chunk moved to the present, [B, Tp, Da], NaN where it says nothing.
            Only a run with a warm start (config.sampler.warm_start) looks at it.
        """
        return self.compiled(self.inference_params, key, obs, previous)

    def controller(self, keys: jax.Array | None = None) -> Controller:
        """A new Controller, which keeps To observations and executes Ta actions of each chunk.

        keys: starts episodes with `Controller.reset(keys)`: keys [B] for B robots, or one key for
            a single robot. None leaves that to the caller.
        """
        horizon = self.config.horizon
        controller = Controller(self.sample_actions, observed=horizon.obs, executed=horizon.act)
        if keys is not None:
            controller.reset(keys)
        return controller

    def warm_up(self, batch_sizes: Iterable[int] = (1,)) -> float:
        """Compiles `sample_actions` for these batch sizes, so that no robot waits for it.

        Returns the seconds that it took.
        """
        return self.compiled.compile(self.inference_params, batch_sizes)


def load(
    run: str | Path,
    *,
    sampler: str | None = None,
    steps: int | None = None,
    warm_start: float | None = None,
    which: str = "ema",
    step: int | None = None,
) -> Run:
    """Loads a run folder, or a policy that comes with dpjax.

    Args:
        run: a run folder, or the name of a shipped policy (`dpjax.runs.shipped.names()`).
        sampler, steps, warm_start: for sampling, in place of those of the run's config.
        which: "ema", the averaged parameters, or "raw", those as the optimizer left them.
        step: the training step to load; None for the newest checkpoint that is not damaged.

    Raises:
        UserError: if there is no run, no such checkpoint, or no such sampler.
    """
    config, spec, params, at = _read(run, which, step)
    # The policy, with the sampler that was asked for; parameters to the device.
    config = build.with_sampling(config, sampler=sampler, steps=steps, warm_start=warm_start)
    policy = build.policy(config, params["normalizer"], spec)
    params = jax.device_put(params)
    return Run(
        policy=policy,
        params=params,
        inference_params=inference_params(params, [jax.default_backend()], config.compute.kernels),
        compiled=build.compiled_policy(config, policy, spec),
        config=config,
        spec=spec,
        step=at,
    )


def _read(run: str | Path, which: str, step: int | None) -> tuple[ConfigDict, Spec, Params, int]:
    """Config, spec, parameters and their step, of a run folder or of a shipped policy."""
    folder = outputs.shipped_folder(str(run))
    if folder is not None:
        return *read_config(folder), *shipped.load_params(folder)
    # A word without a slash may be meant as the name of a shipped policy.
    is_name = len(Path(run).parts) == 1
    if is_name and not Path(run).exists():
        raise UserError(
            f"{run}: no such run folder, and no such policy comes with dpjax; "
            f"{choices(str(run), shipped.names())}."
        )
    return *read_config(run), *checkpoint.load_params(run, which=which, step=step)
