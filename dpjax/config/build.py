"""Builds the network, the policy and the optimizer that a config describes.

`dpjax.config.components` lists the parts that a config chooses by name.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

from ml_collections import ConfigDict
import optax

from dpjax.config import cameras, checks, normalization
from dpjax.config.arguments import names_keys
from dpjax.config.components import CONDITIONINGS, DENOISERS, DTYPES, SAMPLERS, SCHEDULES
from dpjax.core.errors import choose
from dpjax.core.normalizer import Normalizer
from dpjax.core.spec import Spec
from dpjax.diffusion import diffusers_0_11, sampling
from dpjax.diffusion.agreement import METHODS, Agreement
from dpjax.inference.compiled import CompiledPolicy
from dpjax.policies import base, meanflow, representations
from dpjax.policies import diffusion as policies
from dpjax.policies.base import Policy
from dpjax.training import optim


def denoiser(config: ConfigDict, spec: Spec) -> Any:
    """The flax module of the denoising network.

    spec: the sizes of the data in the representation that the network learns.
    """
    checks.check_denoiser(config.denoiser, config.condition)
    network = choose(DENOISERS, config.denoiser.name, "config.denoiser.name")
    # Fields whose values follow from the data and from other keys.
    derived = {
        "features": spec.action,  # numbers per step that the network denoises
        "observed": config.horizon.obs,
        "horizon": config.horizon.predict,
        "local": config.condition == "local",
        "times": 2 if config.method == "meanflow" else 1,  # both ends of MeanFlow's interval
        "remat": config.compute.remat,
        "kernels": config.compute.kernels,
    }
    # With inpainting the network denoises the observations together with the actions, and gets no
    # observations as a condition.
    if config.condition == "inpaint":
        derived["features"] += sum(spec.numbers.values())
        derived["observed"] = 0
    # No network has all of these fields. A transformer lacks "local", for instance.
    names = {field.name for field in dataclasses.fields(network)}
    derived = {name: value for name, value in derived.items() if name in names}
    # The other keys of the section are fields of the module under the same names.
    fields = {name: value for name, value in config.denoiser.items() if name != "name"}
    return network(**derived, **fields)


def representation(config: ConfigDict) -> representations.Representation:
    """The representation of rotations and actions that the network learns."""
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
    """The policy that the config describes.

    normalizer: the units of the data, which `init` puts into the params; None if the caller never
        calls `init`.
    spec: the sizes of the data.
    sampling_loop: see `diffusion_policy`.
    """
    checks.check_method(config)
    # 1. The sizes of the data in the learned representation: a 6-D rotation has more numbers than
    # an axis-angle vector.
    learned = representation(config)
    if spec.observations:
        observations, action = representations.learned_sizes(
            learned, spec.observations, spec.action
        )
        spec = spec._replace(observations=observations, action=action)

    # 2. The two networks, which compute in the dtype of the config.
    dtype = choose(DTYPES, config.compute.dtype, "config.compute.dtype")
    encoder = base.encoder_of(
        cameras.encoder(config.encoder, config.compute, spec),
        cameras.view(config.cameras, config.augment),
        dtype,
    )
    network = base.denoiser_of(denoiser(config, spec), dtype)

    # 3. The training method. The wrapper converts data to the learned representation, and sampled
    # actions back.
    make = _meanflow if config.method == "meanflow" else _diffusion
    options = _shared_options(config, sampling_loop)
    policy = make(config, encoder, network, normalizer, options)
    return representations.wrap(policy, learned)


def _shared_options(config: ConfigDict, sampling_loop: Callable) -> dict[str, Any]:
    """The arguments that the policies of both methods take."""
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
        agree=_agreement(settings),
        sampling_loop=sampling_loop,
        conditioning=conditioning(config.horizon.obs),
    )


# The values of config.sampler.agree.
AGREEMENTS = ("none", *METHODS)


def _agreement(settings: ConfigDict) -> Agreement | None:
    """config.sampler's agreement with the last chunk; None if chunks are independent."""
    choose({"none": None, **METHODS}, settings.agree, "agree")
    if settings.agree == "none":
        return None
    return Agreement(settings.agree, settings.agree_share, settings.beta, settings.std)


def _meanflow(config, encoder, network, normalizer, options) -> Policy:
    """A MeanFlow policy. Its schedule and its sampler are part of the method."""
    # MeanFlow has no choice of schedules, and needs only the scale of its time.
    options = {**options, "num_levels": config.schedule.num_levels, **config.meanflow}
    return meanflow.meanflow_policy(encoder, network, normalizer, **options)


def _diffusion(config, encoder, network, normalizer, options) -> Policy:
    """A diffusion or flow matching policy, which has a noise schedule and a sampler."""
    settings = config.sampler
    num_levels = config.schedule.num_levels
    schedule = choose(SCHEDULES, config.schedule.name, "config.schedule.name")(num_levels)
    sampler = choose(SAMPLERS, settings.name, "config.sampler.name")(settings.eta)
    # Weights that were trained with diffusers 0.11 need the schedule and sampler of that version.
    schedule, sampler = diffusers_0_11.as_in(
        settings.diffusers, schedule, num_levels, settings.name, sampler, config.predict
    )
    options = {**options, "prediction_type": config.predict, "sampler": sampler}
    return policies.diffusion_policy(encoder, network, schedule, normalizer, **options)


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """AdamW with a linear warm-up and a cosine decay over the steps of the training.

    `train_step` clips the gradients before they reach it.
    """
    # The learning rate of the encoders is relative to that of the denoiser.
    scales = {"encoder": config.encoder.lr} if config.cameras else None
    options = config.optim.to_dict()
    is_clipped = options.pop("grad_clip")
    adam = optim.adamw(steps=config.train.steps, scales=scales, **options)
    # Older checkpoints have the (empty) state of a clipping transformation at this place in the
    # chain. The identity keeps the tree of states the same, so that they can be resumed.
    return optax.chain(optax.identity(), adam) if is_clipped else adam


def with_sampling(
    config: ConfigDict,
    *,
    sampler: str | None = None,
    steps: int | None = None,
    warm_start: float | None = None,
    agree: str | None = None,
) -> ConfigDict:
    """A copy of the config with another sampler, number of steps, warm start or agreement.

    None keeps the value of the config.
    """
    # A deep copy: ConfigDict(config) would share its sections with the original.
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.sampler.name = sampler or config.sampler.name
        if steps is not None:
            config.sampler.num_steps = steps
        if warm_start is not None:
            config.sampler.warm_start = warm_start
        config.sampler.agree = agree or config.sampler.agree
    return config


def compiled_policy(
    config: ConfigDict, policy: Policy, spec: Spec, normalizer: Normalizer | None = None
) -> CompiledPolicy:
    """`policy.sample`, compiled once per batch size, for observations of these sizes.

    normalizer: the units of the training data, which tell observations far outside of it; None
        if they are not counted.
    """
    # The program may also take the last action chunk, [Tp, Da] per example.
    previous = (config.horizon.predict, spec.action) if takes_previous(config) else None
    shapes = cameras.observation_shapes(spec, config.horizon.obs)
    ranges = None
    if normalizer is not None:
        learned = representation(config)
        ranges = normalization.trained_ranges(config, normalizer, spec, learned)
    return CompiledPolicy(
        policy.sample, shapes, previous, ranges=ranges, takes_committed=takes_committed(config)
    )


def takes_previous(config: ConfigDict) -> bool:
    """Whether sampling reads the last action chunk: for a warm start, or an agreement with it."""
    return bool(config.sampler.warm_start) or takes_committed(config)


def takes_committed(config: ConfigDict) -> bool:
    """Whether sampling reads how many actions of the last chunk are committed."""
    return config.sampler.agree != "none"
