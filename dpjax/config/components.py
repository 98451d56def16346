"""Tables of the networks, schedules and samplers that a config chooses by name.

To add a network, write a file in `dpjax/nets/` and add a line here. To add a sampler or schedule,
write a function in `dpjax/diffusion/` and add a line here. The names in the tables are the allowed
values of the config keys.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from dpjax.diffusion import samplers, schedules
from dpjax.nets import dit, transformer, unet1d
from dpjax.policies import conditioning

# config.denoiser.name -> flax module. The other keys of config.denoiser are fields of the module.
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
    "euler": lambda eta: samplers.ddim(),  # on a flow, DDIM without noise is Euler's method
    "dpm_solver": lambda eta: samplers.dpm_solver(),
    "heun": lambda eta: samplers.heun(),
}
# config.condition -> (number of observed steps) -> how the features condition the denoiser.
CONDITIONINGS = {
    "features": lambda observed: conditioning.on_features,
    "local": lambda observed: conditioning.on_steps,
    "inpaint": conditioning.inpaint,
}
# config.compute.dtype -> the dtype of the networks' arithmetic; parameters stay float32.
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# The values of config.method (see `build.policy`).
METHODS = ("diffusion", "meanflow")

# Fields of the networks that no key sets: `build.denoiser` derives them from the data and from keys
# of other sections.
DERIVED = ("features", "horizon", "observed", "local", "times", "remat", "kernels")


def denoiser_fields(name: str) -> dict[str, Any]:
    """{field: default} of a network: the keys that config.denoiser may have besides `name`."""
    excluded = (*DERIVED, "parent", "name")  # every flax module has the last two
    fields = dataclasses.fields(DENOISERS[name])
    return {field.name: field.default for field in fields if field.name not in excluded}


def can_be_local(name: str) -> bool:
    """Whether a network supports config.condition "local": features that belong to steps."""
    return "local" in {field.name for field in dataclasses.fields(DENOISERS[name])}
