"""From a config to schedule, network, policy and optimizer; and back from a run.

With `dataset` and the commands the only file that reads config keys. The tables below are the
whole plug-in system: a new denoiser is a file in nets/ and a line here.
"""

from collections.abc import Iterable
import dataclasses
import logging

import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import optax

from dpjax.config import cameras, checks
from dpjax.core import normalizer as normalizers
from dpjax.core.errors import UserError, choices, choose
from dpjax.core.normalizer import Normalizer
from dpjax.core.spec import Spec
from dpjax.core.types import Params
from dpjax.diffusion import diffusers_0_11, samplers, sampling, schedules
from dpjax.inference.compiled import CompiledPolicy
from dpjax.nets import dit, transformer, unet1d
from dpjax.ops import transposed
from dpjax.policies import base as base_lib
from dpjax.policies import conditioning, meanflow, representations
from dpjax.policies import diffusion as policies
from dpjax.policies.base import Policy
from dpjax.training import optim

DENOISERS = {
    "unet1d": unet1d.UNet1D,
    "transformer": transformer.Transformer,
    "dit": dit.DiT,
}
SCHEDULES = {
    "cosine": schedules.cosine,
    "linear": schedules.linear,
    "scaled_linear": schedules.scaled_linear,
    "sigmoid": schedules.sigmoid,
    "flow": schedules.rectified_flow,
}
SAMPLERS = {
    "ddpm": lambda config: samplers.ddpm(),
    "ddim": lambda config: samplers.ddim(config.eta),
    "euler": lambda config: samplers.ddim(),  # its name on a flow
    "dpm_solver": lambda config: samplers.dpm_solver(),
    "heun": lambda config: samplers.heun(),
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
CONDITIONS = {
    "features": lambda horizon: conditioning.on_features,
    "local": lambda horizon: conditioning.on_steps,
    "inpaint": lambda horizon: conditioning.inpaint(horizon.obs),
}

log = logging.getLogger("dpjax")


def check(config: ConfigDict) -> None:
    """What can be wrong between keys, before anything is read or compiled."""
    from dpjax.config import defaults

    checks.check(config.to_dict(), defaults.get_config().to_dict())
    horizon = config.horizon
    checks.check_training(config)
    needed = horizon.obs - 1 + horizon.act
    if needed > horizon.predict:
        raise UserError(
            f"config.horizon.act={horizon.act} does not fit: horizon.obs - 1 + horizon.act = "
            f"{needed} steps are needed but horizon.predict={horizon.predict} are predicted. "
            "Raise horizon.predict or lower horizon.act."
        )
    choose(DENOISERS, config.denoiser.name, "config.denoiser.name")
    if config.denoiser.name == "unet1d":
        sizes = ("widths", "groups", "kernel_size", "time_features")
        unet1d.check_sizes(*(config.denoiser[key] for key in sizes))
        unet1d.check_horizon(horizon.predict, config.denoiser.widths)
    else:
        transformer.check_sizes(config.denoiser.width, config.denoiser.heads)
    for key in ("action", "obs"):
        choose(normalizers.MODES, config.normalize[key], f"config.normalize.{key}")
    if config.normalize.action == "gaussian" and np.isfinite(config.sampler.clip):
        raise UserError(
            f"config.normalize.action='gaussian' with config.sampler.clip="
            f"{config.sampler.clip} would cut actions beyond {config.sampler.clip} standard "
            f"deviations: use 'limits', or config.sampler.clip=inf."
        )
    choose({"refuse": 0, "skip": 0}, config.data.on_bad, "config.data.on_bad")
    choose(normalizers.IMAGE_MODES, config.normalize.image, "config.normalize.image")
    cameras.check_config(config)
    checks.check_columns(config)
    check_schedule(config)
    policy(config, None, Spec({}, 1, ""))  # schedule, sampler and prediction fit together


def check_schedule(config: ConfigDict) -> None:
    """The schedule ends in noise: sampling starts there, whatever was trained."""
    schedule = choose(SCHEDULES, config.schedule.name, "config.schedule.name")
    alpha = schedule(config.schedule.num_levels).path(1, "trailing").now.alpha[0]
    if alpha**2 > schedules.MAX_FIRST_ALPHA_BAR:
        raise UserError(
            f"config.schedule.name={config.schedule.name!r} with num_levels="
            f"{config.schedule.num_levels} ends at ᾱ = {alpha**2:.2f}, far from the noise that "
            "sampling starts from: use 'cosine', or more levels (linear ones need about 1000)."
        )


def denoiser(config: ConfigDict, spec: Spec):
    """The network that the config describes, with the sizes that are not its own."""
    network = choose(DENOISERS, config.denoiser.name, "config.denoiser.name")
    horizon = config.horizon
    if config.condition == "inpaint":
        features, observed = spec.action + sum(spec.numbers.values()), 0
    else:
        features, observed = spec.action, horizon.obs
    sizes = dict(features=features, horizon=horizon.predict, observed=observed)
    sizes.update(local=config.condition == "local", remat=config.compute.remat)
    sizes["times"] = 2 if config.method == "meanflow" else 1
    fields = {field.name: field for field in dataclasses.fields(network)}
    if sizes["local"] and "local" not in fields:
        raise UserError(
            f"config.condition='local' needs config.denoiser.name='unet1d', not "
            f"{config.denoiser.name!r}."
        )
    sizes = {key: value for key, value in sizes.items() if key in fields}
    own = set(fields) - {*sizes, "parent", "name"}
    given = {key: value for key, value in config.denoiser.items() if key != "name"}
    for key, value in given.items():
        if key not in own:
            raise UserError(
                f"config.denoiser.{key} is unknown to {config.denoiser.name!r}; "
                f"{choices(key, own)}."
            )
        checks.check_type(f"denoiser.{key}", value, fields[key].default)
    return network(**sizes, **given)


def representation(config: ConfigDict) -> representations.Representation:
    """What the network learns in place of the data's rotations and absolute actions."""
    return representations.parse(config.representation.layouts, config.representation.relative, config.horizon.obs)


def policy(
    config: ConfigDict, normalizer: Normalizer | None, spec: Spec, sampling_loop=sampling.sample
) -> Policy:
    """The three functions that the config describes, for data of that spec.

    sampling_loop: see `policy.diffusion_policy`.
    """
    checks.check_method(config)
    known = representation(config)
    if spec.observations:
        observations, action = representations.learned_sizes(known, spec.observations, spec.action)
        spec = spec._replace(observations=observations, action=action)
    schedule = choose(SCHEDULES, config.schedule.name, "config.schedule.name")
    sampler = choose(SAMPLERS, config.sampler.name, "config.sampler.name")
    dtype = choose(DTYPES, config.compute.dtype, "config.compute.dtype")
    encoder = base_lib.encoder_of(cameras.encoder(config, spec), cameras.view(config), dtype)
    network = base_lib.denoiser_of(denoiser(config, spec), dtype)
    options = dict(
        horizon=config.horizon.predict,
        num_steps=config.sampler.num_steps,
        spacing=config.sampler.spacing,
        clip=config.sampler.clip,
        mask_padding=config.loss.mask_padding,
        unroll=config.sampler.unroll,
        warm_start=config.sampler.warm_start,
        sampling_loop=sampling_loop,
        conditioning=choose(CONDITIONS, config.condition, "config.condition")(config.horizon),
    )
    if config.method == "meanflow":
        options.update(num_levels=config.schedule.num_levels, **config.meanflow)
        return representations.wrap(
            meanflow.meanflow_policy(encoder, network, normalizer, **options), known
        )
    num_levels, name = config.schedule.num_levels, config.sampler.name
    levels, made = schedule(num_levels), sampler(config.sampler)
    version = config.sampler.diffusers
    levels, made = diffusers_0_11.as_in(version, levels, num_levels, name, made, config.predict)
    options.update(predict=config.predict, sampler=made)
    made = policies.diffusion_policy(encoder, network, levels, normalizer, **options)
    return representations.wrap(made, known)


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """AdamW as the config says, over the whole run; `train_step` clips before it."""
    scales = {"encoder": config.encoder.lr} if config.cameras else None
    options = config.optim.to_dict()
    clipped = options.pop("grad_clip")
    adam = optim.adamw(steps=config.train.steps, scales=scales, **options)
    # In the place where the clipping was: the states of older checkpoints have it.
    return optax.chain(optax.identity(), adam) if clipped else adam


def sampling(config: ConfigDict, *, sampler=None, steps=None, warm_start=None) -> ConfigDict:
    """A copy of the config with another sampler, number of steps or warm start."""
    config = config.copy_and_resolve_references()  # ConfigDict(config) shares its sections
    with config.unlocked():
        config.sampler.name = sampler or config.sampler.name
        if steps is not None:
            config.sampler.num_steps = steps
        if warm_start is not None:
            config.sampler.warm_start = warm_start
    return config


def compiled_policy(config: ConfigDict, policy: Policy, spec: Spec) -> CompiledPolicy:
    """`(params, rng, obs, previous=None) -> [B, Tp, Da]`, compiled once a batch size."""
    step = (config.horizon.predict, spec.action) if config.sampler.warm_start else None
    return CompiledPolicy(policy.sample, cameras.rows(spec, config.horizon.obs), step)


def inference_params(params: Params, platforms: Iterable[str]) -> Params:
    """The params as plans on these platforms take them: for CPUs the denoiser's are turned."""
    if set(platforms) != {"cpu"}:
        return params
    return {**params, "denoiser": transposed.turn(params["denoiser"])}
