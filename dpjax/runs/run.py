"""A trained policy: a run folder, loaded."""


from collections.abc import Iterable
import dataclasses
import functools
import logging
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax

from dpjax.config import cameras
from dpjax.config import checks
from dpjax.config.build import inference_params
from dpjax.config.build import compiled_policy
from dpjax.config.build import log
from dpjax.config.build import policy
from dpjax.config.build import sampling
from dpjax.core import normalizer as normalizers
from dpjax.core import runtime
from dpjax.core.errors import UserError
from dpjax.core.errors import choices
from dpjax.core.errors import choose
from dpjax.core.normalizer import Normalizer
from dpjax.core.spec import Spec
from dpjax.core.types import Params
from dpjax.diffusion import diffusers_0_11
from dpjax.diffusion import samplers
from dpjax.diffusion import schedules
from dpjax.inference import controller
from dpjax.inference.compiled import CompiledPolicy
from dpjax.nets import dit
from dpjax.nets import transformer
from dpjax.nets import unet1d
from dpjax.ops import transposed
from dpjax.policies import conditioning
from dpjax.policies import diffusion as policies
from dpjax.policies import meanflow
from dpjax.policies import representations
from dpjax.policies.base import Policy
from dpjax.runs.config_file import read_config
from dpjax.training import checkpoint
from dpjax.training import optim


class Run(NamedTuple):
    """A trained policy: pure functions, their parameters, and a plan made of both."""

    policy: Policy
    params: Params  # as they were trained
    inference_params: Params  # as `compiled` and `sample_actions` take them
    compiled: CompiledPolicy
    sample_actions: controller.SampleActions
    config: ConfigDict
    spec: Spec
    step: int

    def warm_up(self, batch_sizes: Iterable[int] = (1,)) -> float:
        """Compiles `plan` for these numbers of rows, before a robot waits; the seconds."""
        runtime.use_large_pages(self.inference_params)  # here, since what only exports or validates waits in vain
        return self.compiled.compile(self.inference_params, batch_sizes)


def load(run_dir, *, sampler=None, steps=None, warm_start=None, which="ema", step=None) -> Run:
    """A run as it can act: the newest good checkpoint, or that of `step`.

    sampler, steps, warm_start: other than the run's config says. which: "ema" or "raw".
    """
    config, spec = read_config(run_dir)
    config = sampling(config, sampler=sampler, steps=steps, warm_start=warm_start)
    params, at = checkpoint.load_params(run_dir, which=which, step=step)
    built, params = policy(config, params["normalizer"], spec), jax.device_put(params)
    compiled, taken = compiled_policy(config, built, spec), inference_params(params, [jax.default_backend()])
    return Run(built, params, taken, compiled, functools.partial(compiled, taken), config, spec, at)
