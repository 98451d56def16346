"""The parts that a config chooses by name: the whole plug-in system.

A new denoiser is a file in `dpjax/nets/` and a line here; a new sampler or schedule is a function
in `dpjax/diffusion/` and a line here. The names become the choices of the config's keys.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from dpjax.diffusion import samplers, schedules
from dpjax.nets import dit, transformer, unet1d
from dpjax.policies import conditioning

# config.denoiser.name -> flax module. The other keys of config.denoiser are its fields.
DENOISERS = {
    "unet1d": unet1d.UNet1D,
    "transformer": transformer.Transformer,
    "dit": dit.DiT,
}
# config.schedule.name -> (number of levels) -> Schedule.
SCHEDULES = {
    "cosine": schedules.cosine,
    "linear": schedules.linear,
    "scaled_linear": schedules.scaled_linear,
    "sigmoid": schedules.sigmoid,
    "flow": schedules.rectified_flow,
}
# config.sampler.name -> (eta) -> Sampler.
SAMPLERS = {
    "ddpm": lambda eta: samplers.ddpm(),
    "ddim": samplers.ddim,
    "euler": lambda eta: samplers.ddim(),  # what DDIM without noise is called on a flow
    "dpm_solver": lambda eta: samplers.dpm_solver(),
    "heun": lambda eta: samplers.heun(),
}
# config.condition -> (observed steps) -> conditioning of the denoiser on the features.
CONDITIONINGS = {
    "features": lambda observed: conditioning.on_features,
    "local": lambda observed: conditioning.on_steps,
    "inpaint": conditioning.inpaint,
}
# config.compute.dtype -> what the networks compute in; parameters stay float32.
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# config.method, see `build.policy`.
METHODS = ("diffusion", "meanflow")

# Fields of the networks that follow from the data or from other keys (`build.denoiser`).
DERIVED = ("features", "horizon", "observed", "local", "times", "remat", "kernels")


def denoiser_fields(name: str) -> dict[str, Any]:
    """{field: default} of a network: the keys that config.denoiser may have beside the name."""
    excluded = (*DERIVED, "parent", "name")  # the last two are flax's own
    fields = dataclasses.fields(DENOISERS[name])
    return {field.name: field.default for field in fields if field.name not in excluded}


def can_be_local(name: str) -> bool:
    """Whether a network takes the features step by step (config.condition "local")."""
    return "local" in {field.name for field in dataclasses.fields(DENOISERS[name])}
