"""What a config may hold, checked before anything is read, constructed or compiled.

The table `defaults.KEYS` says what a single key may be; the functions here say which keys go
together. Nothing here needs a device, so that a mistake is one line after a second.
"""

from collections.abc import Mapping
import math
from typing import Any

from ml_collections import ConfigDict

from dpjax import tasks
from dpjax.config import cameras, components, defaults, keys, renamed
from dpjax.config.arguments import names_keys
from dpjax.config.components import SAMPLERS, SCHEDULES
from dpjax.config.keys import Key
from dpjax.core.errors import UserError, choices
from dpjax.core.types import ACTION
from dpjax.diffusion import diffusers_0_11, parameterization, schedules
from dpjax.nets import transformer, unet1d
from dpjax.policies import representations

MEANFLOW = {  # the values that go with config.method "meanflow"
    "schedule.name": ("flow",),
    "predict": ("velocity",),
    "sampler.name": ("euler", "ddim"),
    "sampler.eta": (0.0,),
    "denoiser.name": ("unet1d",),
}


def check(config: ConfigDict) -> None:
    """Raises UserError, one line, for a config that cannot be trained."""
    # First each key by itself, so that the checks below find keys and types as they expect them.
    check_table(config)
    # Then keys that must fit each other.
    check_training(config.optim.warmup, config.train.steps)
    check_denoiser(config.denoiser, config.condition)
    check_horizon(config.horizon, config.denoiser)
    cameras.check(config.cameras, config.condition)
    cameras.check_encoder(config.encoder)
    check_columns(config.task, config.data)
    check_method(config)
    check_sampling(config)
    # The sampler's bound is in network units: a clip of 1 is the full range of the data after
    # "limits", and one standard deviation after "gaussian".
    if config.normalize.action == "gaussian" and math.isfinite(config.sampler.clip):
        clip = config.sampler.clip
        raise UserError(
            f"config.normalize.action='gaussian' with config.sampler.clip={clip} would cut actions "
            f"beyond {clip} standard deviations: use 'limits', or config.sampler.clip=inf."
        )
    with names_keys():
        representation = config.representation
        representations.parse(representation.layouts, representation.relative, config.horizon.obs)


def check_table(config: Mapping) -> None:
    """Refuses missing, unknown and wrongly typed keys, and values that the table excludes."""
    flat = config.to_dict() if isinstance(config, ConfigDict) else config
    check_keys(flat, defaults.KEYS)
    values = keys.flatten(flat)
    for path, key in keys.entries(defaults.KEYS):
        if path in values:  # keys of another denoiser are those of its fields
            keys.check_range(path, values[path], key.range)


def check_keys(config: Mapping, table: keys.Table, prefix: str = "") -> None:
    """Refuses missing, unknown and wrongly typed keys of one section of the table."""
    # Keys that the table does not have: an old name, or a misspelled one.
    for name in config:
        new = renamed.new_key(prefix + name)
        if new != prefix + name:
            raise UserError(f"config.{prefix}{name} is now config.{new}.")
        if name not in table:
            raise UserError(f"config.{prefix}{name} is unknown; {choices(name, table)}.")
    # Keys that the table has: they must be there, and of the default's type.
    for name, entry in table.items():
        if name not in config:
            example = keys.defaults({name: entry})[name]
            raise UserError(
                f"config.{prefix}{name} is missing: configs/base.py has it as {example!r}."
            )
        _check_entry(config[name], entry, prefix + name)


def _check_entry(value: Any, entry: Key | keys.Table, path: str) -> None:
    """One key, or one section; `path` is its dotted name."""
    # A section of the table, or an open one.
    is_section = isinstance(entry, Mapping) or isinstance(entry.default, Mapping)
    if is_section and not isinstance(value, Mapping):
        names = entry if isinstance(entry, Mapping) else entry.default
        raise UserError(
            f"config.{path}={value!r} must be a section with the keys {', '.join(names)}."
        )
    if isinstance(entry, Mapping):
        # The section of another network than the default one shares only some of its keys.
        # `check_denoiser` looks at the others.
        if path in defaults.OPEN and value.get("name") != entry["name"].default:
            entry = {name: key for name, key in entry.items() if name in value}
            value = {name: value[name] for name in entry}
        check_keys(value, entry, f"{path}.")
    elif not is_section:
        keys.check_type(path, value, entry.default)
    elif path in defaults.OPEN_TEXTS:
        for name, text in value.items():
            keys.check_type(f"{path}.{name}", text, "text")


def check_training(warmup: int, steps: int) -> None:
    """Refuses a warm-up that does not end before the training does."""
    if warmup >= steps:
        raise UserError(
            f"config.optim.warmup={warmup} must be below config.train.steps={steps}: the cosine "
            "begins where the warm-up ends."
        )


def check_horizon(horizon: ConfigDict, denoiser: ConfigDict) -> None:
    """Refuses chunks that are too short for what is executed, or that a U-Net cannot halve."""
    # A chunk starts at the first observed step, and Ta steps from the last one on are executed.
    needed = horizon.obs - 1 + horizon.act
    if needed > horizon.predict:
        raise UserError(
            f"config.horizon.act={horizon.act} does not fit: horizon.obs - 1 + horizon.act = "
            f"{needed} steps are needed but horizon.predict={horizon.predict} are predicted. "
            "Raise horizon.predict or lower horizon.act."
        )
    # Each level of a U-Net but the last halves the number of steps.
    if denoiser.name == "unet1d":
        with names_keys():
            unet1d.check_horizon(horizon.predict, denoiser.widths)


def check_denoiser(denoiser: ConfigDict, condition: str) -> None:
    """Refuses keys that the network does not have, and sizes that do not fit together."""
    # The keys of config.denoiser are the fields of the flax module, with the types of their
    # defaults.
    fields = components.denoiser_fields(denoiser.name)
    for name, value in denoiser.items():
        if name == "name":
            continue
        if name not in fields:
            raise UserError(
                f"config.denoiser.{name} is unknown to {denoiser.name!r}; {choices(name, fields)}."
            )
        keys.check_type(f"denoiser.{name}", value, fields[name])
    if condition == "local" and not components.can_be_local(denoiser.name):
        raise UserError(
            f"config.condition='local' needs config.denoiser.name='unet1d', not {denoiser.name!r}."
        )
    with names_keys():
        if denoiser.name == "unet1d":
            sizes = ("widths", "groups", "kernel_size", "time_features")
            unet1d.check_sizes(*(denoiser[name] for name in sizes))
        else:
            transformer.check_sizes(denoiser.width, denoiser.heads)


def check_columns(task_name: str, data: ConfigDict) -> None:
    """Refuses columns that lack what the task observes; what the task cannot do with its data.

    A task that observes whatever there is may leave the columns to the data (`sources.resolved`).
    """
    with names_keys():
        task = tasks.get(task_name)
    if not data.columns and not task.columns:
        return  # all columns of the data, which is not read yet
    if ACTION not in data.columns:
        raise UserError(
            f"config.data.columns has no {ACTION!r}: add {ACTION}=<path inside an RLDS step>."
        )
    for name in task.columns:
        if name not in data.columns:
            raise UserError(
                f"config.data.columns lacks {name!r}, which task {task_name!r} observes: "
                f"add {name}=<path inside an RLDS step, such as observation/{name}>."
            )
    # Options of the data that need something of the task.
    if data.mirror and task.mirror is None:
        raise UserError(
            f"config.data.mirror=True: task {task_name!r} has no mirror image (dpjax/tasks); "
            "set it to False."
        )
    if data.goals and task.simulator is not None:
        raise UserError(
            f"config.data.goals={dict(data.goals)}: the simulator of task {task_name!r} "
            "gives no goals: use config.task=custom."
        )
    if not tasks.observed_columns(task, data.columns):
        raise UserError(
            "config.data.columns names no observation: add one, such as "
            "state=observation/state, or leave it empty for all that the data has."
        )


def check_method(config: ConfigDict) -> None:
    """Refuses keys that do not go with the method, or with each other."""
    # A warm start begins at the last chunk, which holds actions only.
    if config.sampler.warm_start and config.condition == "inpaint":
        raise UserError(
            f"config.sampler.warm_start={config.sampler.warm_start} does not go with "
            "config.condition='inpaint', whose last chunk lacks the observations: set it to 0."
        )
    # diffusers had no flows in 0.11.
    version = config.sampler.diffusers
    is_flow = config.schedule.name == "flow" or config.method == "meanflow"
    if version != "current" and is_flow:
        raise UserError(
            f"config.sampler.diffusers={version!r}: expected 'current', or '0.11' where neither "
            "config.schedule.name is flow nor config.method meanflow."
        )
    # MeanFlow is derived for one schedule, one prediction type and deterministic Euler steps.
    values = keys.flatten(config.to_dict())
    for path, allowed in MEANFLOW.items():
        if config.method == "meanflow" and values[path] not in allowed:
            raise UserError(
                f"config.{path}={values[path]!r} does not go with config.method='meanflow'; set it "
                f"to {' or '.join(map(repr, allowed))}."
            )


def check_sampling(config: ConfigDict) -> None:
    """Refuses a schedule that does not end in noise, and steps that the sampler cannot take."""
    name = config.schedule.name
    num_levels = config.schedule.num_levels
    schedule = SCHEDULES[name](num_levels)
    # One step with the spacing "trailing" starts at the noisiest level.
    alpha = schedule.path(1, "trailing").now.alpha[0]
    if alpha**2 > schedules.MAX_FIRST_ALPHA_BAR:
        raise UserError(
            f"config.schedule.name={name!r} with num_levels={num_levels} ends at ᾱ = "
            f"{alpha**2:.2f}, far from the noise that sampling starts from: use 'cosine', or more "
            "levels (linear ones need about 1000)."
        )
    # The path that sampling would take: building it finds the steps that are impossible.
    settings = config.sampler
    sampler = SAMPLERS[settings.name](settings.eta)
    schedule, sampler = diffusers_0_11.as_in(
        settings.diffusers, schedule, num_levels, settings.name, sampler, config.predict
    )
    with names_keys():
        spacing = sampler.spacing if settings.spacing == "auto" else settings.spacing
        path = schedule.path(settings.num_steps, spacing)
        parameterization.check_prediction_type(config.predict, path)
