"""What the readers of other libraries' files return, and the checks that they share."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from dpjax.core.errors import UserError
from dpjax.interop.weight_map import Shapes, Table

Settings = dict[str, dict[str, Any]]  # {group: {name: value}}, see ImportedPolicy
Units = dict[str, tuple[np.ndarray, np.ndarray]]  # {key: (offset, scale)} of the normalizer
Observations = dict[str, int | tuple[int, int, int]]  # {key: size, or (H, W, 3) of images}

# Bounds that no published policy comes near. They keep a hostile file from asking for a
# network that does not fit into memory.
MAX_STEPS = 10_000  # steps of a horizon, or levels of a noise schedule
MAX_ELEMENTS = 16  # elements of a tuple of sizes, such as a U-Net's widths
MAX_SIZE = 100_000  # any other size, such as a width or a camera's height
MAX_SMALL = 1000  # the settings in SMALL, since memory grows with each layer
SMALL = {"layers", "cond_layers", "kernel_size"}  # settings of a denoiser bounded by MAX_SMALL
# {group: names} of the settings bounded by MAX_STEPS.
STEPS = {"horizon": ("obs", "predict", "act"), "schedule": ("num_levels",)}
MAX_FEATURES = 10_000_000  # size of the vector that a denoiser is conditioned on


class ImportedPolicy(NamedTuple):
    """A policy of another library: its settings, its tensors, and the tables that map them.

    The readers return it, and `dpjax.runs.imported_run` makes a run folder from it.

    source: path of the file or folder, for errors.
    settings: {group: {name: value}}. Group "policy" holds prediction_type and condition; the
        groups horizon, denoiser, encoder, schedule, sampler and loss hold the arguments of
        those parts; cameras holds {camera: {"size", "resize", "crop"}}.
    observations: in dpjax's order, numbers first.
    action_size: Da.
    tensors: {name: float32 array}, all tensors of the two networks.
    encoder, denoiser: functions from the shapes of our leaves to the network's weight table.
    units: {key: (offset, scale)}, the normalization of each observation and of the action.
    """

    source: str
    settings: Settings
    observations: Observations
    action_size: int
    tensors: Mapping[str, np.ndarray]
    encoder: Callable[[Shapes], Table]
    denoiser: Callable[[Shapes], Table]
    units: Units


class SettingError(UserError):
    """A setting is missing, is out of range, or cannot be expressed by the other library.

    settings: the (group, name) pairs, since `argument` can name only one. A layer that knows
        the config replaces them by config keys.
    """

    def __init__(self, message: str, settings: Iterable[tuple[str, str]]):
        super().__init__(message)
        self.settings = tuple(settings)


def name_of(group: str, name: str) -> str:
    """The name of a setting in errors; an empty `name` stands for the entire group."""
    return f"{group}.{name}" if name else group


def refuse(source: str, key: str, expected: str, got: Any) -> UserError:
    """The error for one key of the other library's file. The caller raises it."""
    return UserError(f"{source}: {key}: expected {expected}, got {str(got)[:200]}.")


def choose(source: str, key: str, value: Any, allowed: Mapping[Any, Any]) -> Any:
    """Returns allowed[value]; raises UserError with the values that dpjax has for the key."""
    # A hostile file may have a list or dict here, and those cannot be looked up: they have no hash.
    if not isinstance(value, (str, int, float, bool, type(None))) or value not in allowed:
        names = " or ".join(repr(name) for name in allowed)
        raise refuse(source, key, f"{names}, which is what dpjax has", repr(value))
    return allowed[value]


def override(settings: Settings, overrides: Settings) -> Settings:
    """The settings, each with the user's value if `overrides` has one."""
    # Overrides of other keys, such as those of a training, are not of the policy. They reach the
    # config by another way, see `runs.imported_run.config_for`.
    return {
        group: {name: overrides.get(group, {}).get(name, value) for name, value in values.items()}
        for group, values in settings.items()
    }


def missing_settings(settings: Settings) -> list[tuple[str, str]]:
    """(group, name) of every setting that is None, which means that the file lacks it."""
    return [
        (group, name)
        for group, values in settings.items()
        for name, value in values.items()
        if value is None
    ]


def check_sizes(source: str, settings: Settings) -> None:
    """Raises SettingError for sizes that no policy has, before any network is built."""
    # These must be whole numbers above 0. All others may be absent or of another type.
    for group, names in STEPS.items():
        for name in names:
            _check_size(source, (group, name), settings[group][name], 1, MAX_STEPS)
    for group, values in settings.items():
        for name, value in values.items():
            # A camera is a dict of (height, width) pairs; a camera without a crop has ().
            if group == "cameras":
                for x in (*value["size"], *value["crop"]):
                    _check_size(source, (group, name), x, 1, MAX_SIZE)
            else:
                _check_setting(source, (group, name), value)


def _check_setting(source: str, setting: tuple[str, str], value: Any) -> None:
    """Raises SettingError for too many elements, or a whole number out of range."""
    # A setting is one value or a tuple of them; both are checked as a list.
    elements = value if isinstance(value, (list, tuple)) else [value]
    if len(elements) > MAX_ELEMENTS:
        raise SettingError(
            f"{source}: {name_of(*setting)}: expected {MAX_ELEMENTS} numbers at most, got "
            f"{len(elements)}.",
            [setting],
        )
    group, name = setting
    largest = MAX_SMALL if group == "denoiser" and name in SMALL else MAX_SIZE
    for x in elements:
        if isinstance(x, int) and not isinstance(x, bool):  # True is an int in Python
            _check_size(source, setting, x, 0, largest)


def _check_size(source: str, setting: tuple[str, str], value: Any, low: int, high: int) -> None:
    # Not isinstance: True would pass for 1.
    if type(value) is not int or not low <= value <= high:
        raise SettingError(
            f"{source}: {name_of(*setting)}: expected a whole number from {low} to {high:,}, got "
            f"{str(value)[:200]}.",
            [setting],
        )


def sampler_spacing(num_levels: Any, num_steps: Any) -> str:
    """The value of `sampler.spacing` that takes the same steps as diffusers' "leading" spacing.

    This is "auto" if num_steps divides num_levels. Unlike "leading", "auto" also allows other
    numbers of steps when the run is used later.
    """
    # The values may have any type here; `check_sizes` refuses them later.
    integers = isinstance(num_levels, int) and isinstance(num_steps, int) and num_steps > 0
    return "auto" if integers and num_levels % num_steps == 0 else "leading"


def feature_order(source_sizes: Mapping[str, int], keys: list[str], steps: int = 1) -> np.ndarray:
    """For each of our features, its index in the other library's vector: int [steps · F].

    source_sizes: {key: size} in the other library's order. keys: the same keys in our order.
    steps: number of observed steps; the vector has their features one step after the other.
    """
    # Checked before any array is allocated, because the sizes come from the file.
    if steps * sum(source_sizes.values()) > MAX_FEATURES:
        raise UserError(
            f"{steps} observed steps of {dict(source_sizes)} features: expected "
            f"{MAX_FEATURES:,} numbers at most."
        )
    # Where each key begins in the other library's vector, and the indices of our keys in it.
    starts = dict(zip(source_sizes, np.cumsum([0, *source_sizes.values()])))
    ranges = [starts[key] + np.arange(source_sizes[key]) for key in keys]
    # The empty array makes the result int even for a policy without features.
    one_step = np.concatenate([np.zeros(0, int), *ranges])
    # The same order within every step: [steps, F] -> [steps · F].
    return (np.arange(steps)[:, None] * len(one_step) + one_step).reshape(-1)


def split_numbers(source: str, size: int, observations: Mapping[str, int] | None) -> dict[str, int]:
    """How the source's vector of `size` numbers is divided into observations: {name: size}.

    observations: the user's names and sizes; None for one observation "state".
    """
    sizes = dict(observations or {"state": size})
    if sum(sizes.values()) != size:
        text = ",".join(f"{key}={n}" for key, n in sizes.items())
        raise UserError(
            f"observations={text}: expected sizes that add up to the {size} numbers that "
            f"{source} observes, got {sum(sizes.values())}.",
            argument="observations",
        )
    return sizes


def split_units(offset: np.ndarray, scale: np.ndarray, sizes: Mapping[str, int]) -> Units:
    """Divides one vector's offset and scale into {observation: (offset, scale)}."""
    ends = np.cumsum([0, *sizes.values()])  # where each observation ends, after the first 0
    return {
        key: (offset[start:end], scale[start:end])
        for key, start, end in zip(sizes, ends[:-1], ends[1:])
    }
