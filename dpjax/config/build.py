"""Makes what a config describes: network, policy, optimizer.

The parts that a config chooses by name are in `dpjax.config.components`.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

from ml_collections import ConfigDict
import optax

from dpjax.config import cameras, checks
from dpjax.config.arguments import names_keys
from dpjax.config.components import CONDITIONINGS, DENOISERS, DTYPES, SAMPLERS, SCHEDULES
from dpjax.core.errors import choose
from dpjax.core.normalizer import Normalizer
from dpjax.core.spec import Spec
from dpjax.diffusion import diffusers_0_11, sampling
from dpjax.inference.compiled import CompiledPolicy
from dpjax.policies import base, meanflow, representations
from dpjax.policies import diffusion as policies
from dpjax.policies.base import Policy
from dpjax.training import optim


def denoiser(config: ConfigDict, spec: Spec) -> Any:
    """The flax module of the network. spec: of what it learns, see `representation`."""
    checks.check_denoiser(config.denoiser, config.condition)
    network = choose(DENOISERS, config.denoiser.name, "config.denoiser.name")
    # Fields that follow from the data and from other keys; each network has some of them.
    derived = {
        "features": spec.action,
        "observed": config.horizon.obs,
        "horizon": config.horizon.predict,
        "local": config.condition == "local",
        "times": 2 if config.method == "meanflow" else 1,
        "remat": config.compute.remat,
        "kernels": config.compute.kernels,
    }
    if config.condition == "inpaint":  # observations are denoised too, and condition nothing
        derived["features"] += sum(spec.numbers.values())
        derived["observed"] = 0
    # A network without a field computes the same without it: a transformer has no "local".
    names = {field.name for field in dataclasses.fields(network)}
    derived = {name: value for name, value in derived.items() if name in names}
    fields = {name: value for name, value in config.denoiser.items() if name != "name"}
    return network(**derived, **fields)


def representation(config: ConfigDict) -> representations.Representation:
    """How rotations and relative actions are represented in what the network learns."""
    section = config.representation
    with names_keys():
        return representations.parse(section.layouts, section.relative, config.horizon.obs)


@names_keys()
def policy(
    config: ConfigDict,
    normalizer: Normalizer | None,
    spec: Spec,
    sampling_loop: Callable = sampling.sample,
) -> Policy:
    """The policy that the config describes, for data of that spec.

    normalizer: None where `init` is not called. sampling_loop: see `diffusion_policy`.
    """
    checks.check_method(config)
    # The network learns data in another representation, whose sizes may be other ones.
    learned = representation(config)
    if spec.observations:
        observations, action = representations.learned_sizes(
            learned, spec.observations, spec.action
        )
        spec = spec._replace(observations=observations, action=action)

    # The two networks, in the arithmetic that the config asks for.
    dtype = choose(DTYPES, config.compute.dtype, "config.compute.dtype")
    encoder = base.encoder_of(
        cameras.encoder(config.encoder, config.compute, spec),
        cameras.view(config.cameras, config.augment),
        dtype,
    )
    network = base.denoiser_of(denoiser(config, spec), dtype)

    # The method of training, in the representation that is learned.
    make = _meanflow if config.method == "meanflow" else _diffusion
    options = _shared_options(config, sampling_loop)
    policy = make(config, encoder, network, normalizer, options)
    return representations.wrap(policy, learned)


def _shared_options(config: ConfigDict, sampling_loop: Callable) -> dict[str, Any]:
    """Arguments that the policies of both methods take."""
    settings = config.sampler
    conditioning = choose(CONDITIONINGS, config.condition, "config.condition")
    return dict(
        horizon=config.horizon.predict,
        num_steps=settings.num_steps,
        spacing=settings.spacing,
        clip=settings.clip,
        mask_padding=config.loss.mask_padding,
        unroll=settings.unroll,
        warm_start=settings.warm_start,
        sampling_loop=sampling_loop,
        conditioning=conditioning(config.horizon.obs),
    )


def _meanflow(config, encoder, network, normalizer, options) -> Policy:
    """MeanFlow: its schedule and its sampler are part of the method."""
    options = {**options, "num_levels": config.schedule.num_levels, **config.meanflow}
    return meanflow.meanflow_policy(encoder, network, normalizer, **options)


def _diffusion(config, encoder, network, normalizer, options) -> Policy:
    """Diffusion or flow matching: a schedule, and a sampler that follows its path."""
    settings = config.sampler
    num_levels = config.schedule.num_levels
    schedule = choose(SCHEDULES, config.schedule.name, "config.schedule.name")(num_levels)
    sampler = choose(SAMPLERS, settings.name, "config.sampler.name")(settings.eta)
    schedule, sampler = diffusers_0_11.as_in(
        settings.diffusers, schedule, num_levels, settings.name, sampler, config.predict
    )
    options = {**options, "prediction_type": config.predict, "sampler": sampler}
    return policies.diffusion_policy(encoder, network, schedule, normalizer, **options)


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """AdamW over the whole run, warm-up and cosine included; `train_step` clips before it."""
    scales = {"encoder": config.encoder.lr} if config.cameras else None
    options = config.optim.to_dict()
    is_clipped = options.pop("grad_clip")
    adam = optim.adamw(steps=config.train.steps, scales=scales, **options)
    # The identity stands where clipping once was: older checkpoints have its (empty) state.
    return optax.chain(optax.identity(), adam) if is_clipped else adam


def with_sampling(
    config: ConfigDict,
    *,
    sampler: str | None = None,
    steps: int | None = None,
    warm_start: float | None = None,
) -> ConfigDict:
    """A copy of the config with another sampler, number of steps or warm start."""
    config = config.copy_and_resolve_references()  # ConfigDict(config) would share its sections
    with config.unlocked():
        config.sampler.name = sampler or config.sampler.name
        if steps is not None:
            config.sampler.num_steps = steps
        if warm_start is not None:
            config.sampler.warm_start = warm_start
    return config


def compiled_policy(config: ConfigDict, policy: Policy, spec: Spec) -> CompiledPolicy:
    """`policy.sample` as one program per batch size, for observations of that spec."""
    # With a warm start the program takes the last chunk, [Tp, Da] of each example, too.
    previous = (config.horizon.predict, spec.action) if config.sampler.warm_start else None
    return CompiledPolicy(
        policy.sample, cameras.observation_shapes(spec, config.horizon.obs), previous
    )
