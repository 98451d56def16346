"""What a config may hold: keys, types and ranges, each said in one line.

`configs/base.py` has every key with a value of the right type; a config has these
keys and no others. A file of configs/ can break that (a ConfigDict takes any new
attribute until it is locked), and so can an override of a whole section.
"""

from collections.abc import Mapping
import math
from typing import Any

import jax
from ml_collections import ConfigDict

from dpjax import tasks
from dpjax.core.errors import UserError, choices, choose
from dpjax.core.types import ACTION
from dpjax.config import renamed
from dpjax.diffusion import diffusers_0_11
from dpjax.training import parallel
from dpjax.training.step import check_accumulation

# Sections whose keys are the user's own, with texts as values: new ones may be given on the
# command line too.
TEXTS = ("data.columns", "data.goals", "representation.layouts", "normalize.per_key")
# Those, and sections whose keys follow from data or from a name that base's is not.
OPEN = (*TEXTS, "denoiser", "cameras")

ABOVE_0 = (
    *("horizon.obs", "horizon.predict", "horizon.act"),
    *("train.steps", "train.batch", "train.steps_per_call", "train.accumulate", "train.seeds"),
    *("optim.lr", "optim.eps", "schedule.num_levels"),
    *("eval.episodes", "eval.num_envs", "eval.num_steps"),
    *("val.windows", "val.samples", "val.num_steps"),
    *("sampler.num_steps", "sampler.unroll", "sampler.clip"),
    *("encoder.width", "encoder.keypoints", "encoder.features"),
)
AT_LEAST_0 = (
    *("optim.weight_decay", "optim.warmup", "optim.grad_clip", "ema.power"),
    *("log.every", "val.every", "eval.every", "save.every", "save.keep_best"),
    *("data.max_episodes", "data.memory", "normalize.min_range"),
    *("meanflow.power",),
    *("augment.shift", "encoder.lr"),
)
BELOW = {  # 0 <= value < bound
    "data.val_fraction": 1,
    "optim.b1": 1,
    "optim.b2": 1,
    "normalize.quantile": 0.5,
    "sampler.warm_start": 1,
    "seed": 2**32,
    "data.val_seed": 2**32,
}
UP_TO = {  # 0 <= value <= bound
    "ema.max": 1,
    "meanflow.share": 1,
    "sampler.eta": 1,
    "augment.brightness": 1,
    "augment.contrast": 1,
    "augment.saturation": 1,
    "augment.hue": 0.5,
}
MAY_BE_INFINITE = ("sampler.clip",)


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}, tuples as lists."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def check(config: Mapping, complete: Mapping) -> None:
    """Refuses a config with other keys or types than the complete one, or bad numbers."""
    check_keys(config, complete)
    given = flatten(config)
    for key in (*ABOVE_0, *AT_LEAST_0, *BELOW, *UP_TO):
        _check_range(key, given[key])


def check_columns(config: ConfigDict) -> None:
    """The columns that the task and the loss want are mapped to something.

    A task that observes whatever there is may leave them to the data (`dataset.resolved`).
    """
    task = tasks.get(config.task)
    if not config.data.columns and not task.columns:
        return
    if ACTION not in config.data.columns:
        raise UserError(
            f"config.data.columns has no {ACTION!r}: add {ACTION}=<path inside an RLDS step>."
        )
    for key in task.columns:
        if key not in config.data.columns:
            raise UserError(
                f"config.data.columns lacks {key!r}, which task {config.task!r} observes: "
                f"add {key}=<path inside an RLDS step, such as observation/{key}>."
            )
    if config.data.mirror and task.mirror is None:
        raise UserError(
            f"config.data.mirror=True: task {config.task!r} has no mirror image (dpjax/tasks); "
            "set it to False."
        )
    if config.data.goals and task.columns:
        raise UserError(
            f"config.data.goals={dict(config.data.goals)}: the simulator of task {config.task!r} "
            "gives no goals: use config.task=custom."
        )
    if not tasks.observed_columns(task, config.data.columns):
        raise UserError(
            "config.data.columns names no observation: add one, such as "
            "state=observation/state, or leave it empty for all that the data has."
        )


def check_training(config: ConfigDict) -> None:
    """The batch can be split over devices and parts; the optimizer's keys fit together."""
    if not 0 <= config.optim.warmup < config.train.steps:
        raise UserError(
            f"config.optim.warmup={config.optim.warmup} must be below config.train.steps="
            f"{config.train.steps}: the cosine begins where the warm-up ends."
        )
    choose({"all": 0, "matrices": 0}, config.optim.decay, "config.optim.decay")
    choose(parallel.STRATEGIES, config.train.parallel, "config.train.parallel")
    parallel.check_batch(config.train.batch, jax.device_count())
    check_accumulation(config.train.batch // jax.device_count(), config.train.accumulate)


METHODS = ("diffusion", "meanflow")
MEANFLOW = {  # what else a config with method "meanflow" may say
    "schedule.name": ("flow",),
    "predict": ("velocity",),
    "sampler.name": ("euler", "ddim"),
    "sampler.eta": (0.0,),
    "denoiser.name": ("unet1d",),
}


def check_method(config: ConfigDict) -> None:
    """Refuses an unknown method, and keys that do not go with it or with each other."""
    if config.sampler.warm_start and config.condition == "inpaint":
        raise UserError(
            f"config.sampler.warm_start={config.sampler.warm_start} does not go with "
            "config.condition='inpaint', whose last plan lacks the observations: set it to 0."
        )
    if config.method not in METHODS:
        raise UserError(
            f"config.method={config.method!r} is unknown; {choices(config.method, METHODS)}."
        )
    version = config.sampler.diffusers
    if version not in diffusers_0_11.VERSIONS or (version != "current" and _is_flow(config)):
        raise UserError(
            f"config.sampler.diffusers={version!r}: expected 'current', or '0.11' where neither "
            "config.schedule.name is flow nor config.method meanflow."
        )
    given = flatten(config.to_dict())
    for key, allowed in MEANFLOW.items():
        if config.method == "meanflow" and given[key] not in allowed:
            raise UserError(
                f"config.{key}={given[key]!r} does not go with config.method='meanflow'; set it "
                f"to {' or '.join(map(repr, allowed))}."
            )


def _is_flow(config):
    return config.schedule.name == "flow" or config.method == "meanflow"


def check_keys(config: Mapping, complete: Mapping, where: str = "") -> None:
    """Refuses missing, unknown and wrongly typed keys of `config`, section by section."""
    for key in config:
        if key not in complete:
            if renamed.new_key(where + key) != where + key:
                raise UserError(f"config.{where}{key} is now config.{renamed.new_key(where + key)}.")
            raise UserError(f"config.{where}{key} is unknown; {choices(key, complete)}.")
    for key, example in complete.items():
        path = where + key
        if key not in config:
            raise UserError(f"config.{path} is missing: configs/base.py has it as {example!r}.")
        if isinstance(example, Mapping):
            if not isinstance(config[key], Mapping):
                raise UserError(
                    f"config.{path}={config[key]!r} must be a section with the keys "
                    f"{', '.join(example)}."
                )
            if path not in OPEN or config[key].get("name", 0) == example.get("name", 1):
                check_keys(config[key], example, f"{path}.")
            else:
                _check_known(config[key], example, f"{path}.")
        else:
            check_type(path, config[key], example)


def _check_known(section, example, where):
    """The types of those keys of an open section that base has too."""
    for key in section:
        if key in example:
            check_type(where + key, section[key], example[key])


def check_type(path: str, value: Any, example: Any) -> None:
    """Refuses a value of another type than the example's; an int is a float, a bool is not."""
    if not _fits(value, example):
        raise UserError(
            f"config.{path}={value!r} must be {type_name(example)}, such as {example!r}."
        )


def _fits(value, example):
    if isinstance(example, (bool, str)):
        return isinstance(value, type(example))
    if isinstance(example, tuple):
        return isinstance(value, (tuple, list)) and all(_fits(x, example[0]) for x in value)
    numbers = (int, float) if isinstance(example, float) else (int,)
    return isinstance(value, numbers) and not isinstance(value, bool)


def type_name(example: Any) -> str:
    """The type of a value, in words."""
    if isinstance(example, tuple):
        return f"a tuple, each element {type_name(example[0])}"
    names = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
    return names.get(type(example), type(example).__name__)


def _check_range(path, value):
    """Refuses a number that is NaN, infinite or out of its range."""
    low = value > 0 if path in ABOVE_0 else value >= 0
    bound = BELOW.get(path, UP_TO.get(path, math.inf))
    high = value <= bound if path in UP_TO else value < bound or path in MAY_BE_INFINITE
    if low and high:  # both False for NaN
        return
    allowed = {
        path in ABOVE_0: "above 0",
        path in AT_LEAST_0: "0 or more",
        path in BELOW: f"in [0, {bound})",
        path in UP_TO: f"in [0, {bound}]",
    }[True]
    finite = "" if path in MAY_BE_INFINITE or math.isfinite(value) else "finite and "
    raise UserError(f"config.{path}={value!r} must be {finite}{allowed}.")
