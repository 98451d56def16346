"""Checks of a config, made before any data is read and any network is built or compiled.

The table `defaults.KEYS` has the allowed values of each key. The functions here check which keys
fit together. None of them needs a device, so a mistake is reported within a second.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from dpjax import tasks
from dpjax.config import cameras, components, defaults, keys, normalization, renamed
from dpjax.config.arguments import names_keys
from dpjax.config.components import SAMPLERS, SCHEDULES
from dpjax.config.keys import Key
from dpjax.core.errors import UserError, choices
from dpjax.core.types import ACTION
from dpjax.diffusion import diffusers_0_11, parameterization, schedules
from dpjax.nets import transformer, unet1d
from dpjax.policies import representations

MEANFLOW = {  # {key: the values that config.method "meanflow" allows}
    "schedule.name": ("flow",),
    "predict": ("velocity",),
    "sampler.name": ("euler", "ddim"),
    "sampler.eta": (0.0,),
    "sampler.agree": ("none", "blend"),  # a step estimates no x_0 whose Jacobian could guide
    "denoiser.name": ("unet1d",),
}


def check(config: ConfigDict) -> None:
    """Raises UserError, one line, for a config that cannot be trained."""
    # 1. Each key by itself. The checks below rely on keys that exist and have the right type.
    check_table(config)
    # 2. Keys that must fit together.
    check_training(config.optim.warmup, config.train.steps)
    check_denoiser(config.denoiser, config.condition)
    check_horizon(config.horizon, config.denoiser)
    cameras.check(config.cameras, config.condition)
    cameras.check_encoder(config.encoder)
    check_columns(config.task, config.data)
    check_method(config)
    check_sampling(config)
    normalization.check(config)
    # 3. The layouts of rotations: parsing them finds the mistakes.
    with names_keys():
        representation = config.representation
        representations.parse(representation.layouts, representation.relative, config.horizon.obs)


def check_table(config: Mapping) -> None:
    """Raises UserError for keys or values that do not agree with the table of all keys."""
    flat = config.to_dict() if isinstance(config, ConfigDict) else config
    check_keys(flat, defaults.KEYS)
    values = keys.flatten(flat)
    for path, key in keys.entries(defaults.KEYS):
        if path in values:  # the section of another denoiser lacks keys of the U-Net
            keys.check_range(path, values[path], key.range)


def check_keys(config: Mapping, table: keys.Table, prefix: str = "") -> None:
    """Raises UserError for missing, unknown and wrongly typed keys of one section."""
    # Keys of the config that the table lacks: an old name, or a misspelled one.
    for name in config:
        new = renamed.new_key(prefix + name)
        if new != prefix + name:
            raise UserError(f"config.{prefix}{name} is now config.{new}.")
        if name not in table:
            raise UserError(f"config.{prefix}{name} is unknown; {choices(name, table)}.")
    # Keys of the table: the config must have them, with the type of the default.
    for name, entry in table.items():
        if name not in config:
            example = keys.defaults({name: entry})[name]
            raise UserError(
                f"config.{prefix}{name} is missing: configs/base.py has it as {example!r}."
            )
        _check_entry(config[name], entry, prefix + name)


def _check_entry(value: Any, entry: Key | keys.Table, path: str) -> None:
    """Checks one key, or one section. path: its dotted name."""
    # A dict in the table is a section. A key whose default is a dict is an open section.
    is_section = isinstance(entry, Mapping) or isinstance(entry.default, Mapping)
    if is_section and not isinstance(value, Mapping):
        names = entry if isinstance(entry, Mapping) else entry.default
        raise UserError(
            f"config.{path}={value!r} must be a section with the keys {', '.join(names)}."
        )
    if isinstance(entry, Mapping):
        # A network other than the default has only some of these keys. `check_denoiser` checks
        # the other keys that it has.
        if path in defaults.OPEN and value.get("name") != entry["name"].default:
            entry = {name: key for name, key in entry.items() if name in value}
            value = {name: value[name] for name in entry}
        check_keys(value, entry, f"{path}.")
    elif not is_section:
        keys.check_type(path, value, entry.default)
    # In most open sections every value is a text.
    elif path in defaults.OPEN_TEXTS:
        for name, text in value.items():
            keys.check_type(f"{path}.{name}", text, "text")


def check_training(warmup: int, steps: int) -> None:
    """Raises UserError unless the warm-up ends before the training does."""
    if warmup >= steps:
        raise UserError(
            f"config.optim.warmup={warmup} must be below config.train.steps={steps}: the cosine "
            "begins where the warm-up ends."
        )


def check_horizon(horizon: ConfigDict, denoiser: ConfigDict) -> None:
    """Raises UserError for action chunks too short to execute, or that a U-Net cannot halve."""
    # A chunk starts at the first observed step. The robot executes Ta steps from the last observed
    # one on, so To - 1 + Ta steps are needed.
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
    """Raises UserError for keys that the network lacks, or sizes that do not fit together."""
    # The keys of config.denoiser are the fields of the flax module. Defaults tell their types.
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
    """Raises UserError for columns that the task lacks, or options that it does not support.

    A task that observes all columns may leave them empty: `sources.resolved` reads their names.
    """
    with names_keys():
        task = tasks.get(task_name)
    if not data.columns and not task.columns:
        return  # the names of the columns are in the data, which is not read yet
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
    # Options that only some tasks support.
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
    """Raises UserError for a sampler or schedule that the training method does not allow."""
    # A warm start begins at the last chunk, which lacks the observations that inpainting denoises.
    if config.sampler.warm_start and config.condition == "inpaint":
        raise UserError(
            f"config.sampler.warm_start={config.sampler.warm_start} does not go with "
            "config.condition='inpaint', whose last chunk lacks the observations: set it to 0."
        )
    # diffusers 0.11 had no flow matching.
    version = config.sampler.diffusers
    is_flow = config.schedule.name == "flow" or config.method == "meanflow"
    if version != "current" and is_flow:
        raise UserError(
            f"config.sampler.diffusers={version!r}: expected 'current', or '0.11' where neither "
            "config.schedule.name is flow nor config.method meanflow."
        )
    # MeanFlow is derived for straight paths, velocities and deterministic Euler steps.
    values = keys.flatten(config.to_dict())
    for path, allowed in MEANFLOW.items():
        if config.method == "meanflow" and values[path] not in allowed:
            raise UserError(
                f"config.{path}={values[path]!r} does not go with config.method='meanflow'; set it "
                f"to {' or '.join(map(repr, allowed))}."
            )


def check_sampling(config: ConfigDict) -> None:
    """Raises UserError for a schedule that does not end in noise, or impossible sampling steps."""
    name = config.schedule.name
    num_levels = config.schedule.num_levels
    schedule = SCHEDULES[name](num_levels)
    # A path of one step with the spacing "trailing" consists of the noisiest level.
    alpha = schedule.path(1, "trailing").now.alpha[0]
    if alpha**2 > schedules.MAX_FIRST_ALPHA_BAR:
        raise UserError(
            f"config.schedule.name={name!r} with num_levels={num_levels} ends at ᾱ = "
            f"{alpha**2:.2f}, far from the noise that sampling starts from: use 'cosine', or more "
            "levels (linear ones need about 1000)."
        )
    # Building the path that sampling would take finds the impossible numbers of steps.
    settings = config.sampler
    sampler = SAMPLERS[settings.name](settings.eta)
    schedule, sampler = diffusers_0_11.as_in(
        settings.diffusers, schedule, num_levels, settings.name, sampler, config.predict
    )
    with names_keys():
        spacing = sampler.spacing if settings.spacing == "auto" else settings.spacing
        path = schedule.path(settings.num_steps, spacing)
        parameterization.check_prediction_type(config.predict, path)
