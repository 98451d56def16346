"""What is read of somebody else's policy, before it is ours."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from dpjax.core.errors import UserError
from dpjax.interop.weight_map import Piece, Shapes

Units = dict[str, tuple[np.ndarray, np.ndarray]]  # {key: (offset, scale)} of the normalizer
Observations = dict[str, int | tuple[int, int, int]]  # {key: size, or (H, W, 3) of images}


STEPS = ("horizon.obs", "horizon.predict", "horizon.act", "schedule.num_levels")
MAX_STEPS, MAX_LEVELS, MAX_SIZE = 10_000, 16, 100_000  # of these; of a U-Net; of all else
MOST = {"denoiser.layers": 1000, "denoiser.cond_layers": 1000, "denoiser.kernel_size": 1000}
MAX_FEATURES = 10_000_000  # numbers that a network is conditioned on


class Found(NamedTuple):
    """Somebody's policy: what dpjax's config has to say of it, its tensors, and what they are.

    settings: {config key, dotted: value}; a value that could not be read is None.
    observations: in our order, numbers first; action: Da.
    tensors: {name: float32 array}, all of them of the two networks.
    encoder, denoiser: our leaves' shapes -> the pieces.
    said: lines for the user: what was left out, and what is done in another way here.
    """

    source: str
    settings: dict[str, Any]
    observations: Observations
    action: int
    tensors: Mapping[str, np.ndarray]
    encoder: Callable[[Shapes], tuple[Piece, ...]]
    denoiser: Callable[[Shapes], tuple[Piece, ...]]
    units: Units
    said: list[str]


def refuse(source: str, key: str, expected: str, got: Any, remedy: str = "") -> UserError:
    """The one line about a key of somebody's file."""
    remedy = f" {remedy}" if remedy else ""
    return UserError(f"{source}: {key}: expected {expected}, got {str(got)[:200]}.{remedy}")


def only(source: str, key: str, got: Any, allowed: Mapping[Any, Any]) -> Any:
    """allowed[got], or a line that names what dpjax does not have."""
    if not isinstance(got, (str, int, float, bool, type(None))) or got not in allowed:
        names = " or ".join(repr(name) for name in allowed)
        raise refuse(source, key, f"{names}, which is what dpjax has", repr(got))
    return allowed[got]


def check_sizes(source: str, settings: Mapping[str, Any]) -> None:
    """Refuses numbers that no network has, before anything is made of them."""
    for key in STEPS:
        _check_size(source, key, settings[key], 1, MAX_STEPS)
    for key, value in settings.items():
        if key == "cameras":
            for name, camera in value.items():
                for x in (*camera["size"], *camera["crop"]):
                    _check_size(source, f"cameras.{name}", x, 1, MAX_SIZE)
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        if len(values) > MAX_LEVELS:
            raise refuse(source, f"config.{key}", f"{MAX_LEVELS} numbers at most", len(values))
        for x in values:
            if isinstance(x, int) and not isinstance(x, bool):
                _check_size(source, key, x, 0, MOST.get(key, MAX_SIZE))


def _check_size(source: str, key: str, value: Any, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        expected = f"a whole number from {low} to {high:,}"
        raise refuse(source, f"config.{key}", expected, value, "Or give --set.")


def spacing(settings: Mapping[str, Any]) -> str:
    """config.sampler.spacing of diffusers' "leading" steps; "auto" where it takes the same.

    With "auto" other numbers of steps may be asked for, which leading steps don't allow.
    """
    levels, steps = settings["schedule.num_levels"], settings["sampler.num_steps"]
    whole = isinstance(levels, int) and isinstance(steps, int) and steps > 0
    return "auto" if whole and levels % steps == 0 else "leading"


def order_of(theirs: Mapping[str, int], ours: list[str], steps: int = 1) -> np.ndarray:
    """Where each number of our features is among theirs: int [steps · F].

    theirs: {key: size} in their order. ours: the same keys in ours. steps: observed ones,
        one after the other.
    """
    if steps * sum(theirs.values()) > MAX_FEATURES:
        raise UserError(
            f"{steps} observed steps of {dict(theirs)} features: expected {MAX_FEATURES:,} "
            "numbers at most."
        )
    starts = dict(zip(theirs, np.cumsum([0, *theirs.values()])))
    one = [starts[key] + np.arange(theirs[key]) for key in ours]
    one = np.concatenate([np.zeros(0, int), *one])
    return (np.arange(steps)[:, None] * len(one) + one).reshape(-1)


def split_numbers(source: str, size: int, names: Mapping[str, int] | None) -> dict[str, int]:
    """{observation: size} of `size` numbers in a row; names: what the user calls them."""
    names = dict(names or {"state": size})
    if sum(names.values()) != size:
        raise UserError(
            f"--observations {','.join(f'{key}={n}' for key, n in names.items())}: expected sizes "
            f"that add up to the {size} numbers that {source} observes, got {sum(names.values())}."
        )
    return names
