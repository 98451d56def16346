"""What a message must hold for a policy: names, shapes, dtypes, images, history.

A client sends the raw columns of one step, as they were recorded in the demonstrations, and the
server applies `Task.observe`. A column with one axis more holds the whole history, To steps.

    {"state": [5]} or {"observation/state": [5]}       one step
    {"state": [To, 5]}                                 the history itself
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from dpjax.core.errors import UserError, choices
from dpjax.data import images

# Path of the observations inside an RLDS step, which most clients put before the names.
PATH = "observation/"
# Values of a message that are about the request, not about the observation.
EXTENSIONS = ("dpjax/step", "dpjax/committed", "dpjax/deadline_ms", "dpjax/seed", "dpjax/id")
RESERVED = ("endpoint", "session_id", *EXTENSIONS)
ENCODED = (b"\x89PNG\r\n", b"\xff\xd8\xff")  # how PNG and JPEG files begin


class Contract(NamedTuple):
    """What a policy is given.

    columns: the names of the raw columns that `observe` takes.
    observe: raw columns {name: [To, ...]} -> the policy's observations {name: [To, ...]}.
    obs_shapes: {name: (To, ...) and dtype} of the policy's observations of one example; arrays or
        `jax.ShapeDtypeStruct`s.
    action: Da. predicted: Tp. executed: Ta.
    names: {other name in a message: column}.
    """

    columns: tuple[str, ...]
    observe: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
    obs_shapes: Mapping[str, Any]
    action: int
    predicted: int
    executed: int
    names: Mapping[str, str] = {}

    @property
    def observed(self) -> int:
        """To."""
        return next(iter(self.obs_shapes.values())).shape[0]

    def image(self, column: str) -> tuple[int, ...] | None:
        """(H, W, 3) of a column that is a camera image, otherwise None."""
        shape = self.obs_shapes.get(column)
        return tuple(shape.shape[1:]) if shape is not None and shape.dtype == np.uint8 else None

    @property
    def max_bytes(self) -> int:
        """The size of a message that holds the history in full, with room for other values."""
        sizes = (int(np.prod(x.shape)) * x.dtype.itemsize for x in self.obs_shapes.values())
        # A task may observe less than it is given, so numbers have room for a megabyte.
        return max(1 << 20, int(1.25 * sum(sizes)) + (64 << 10))


def describe(contract: Contract) -> dict[str, dict[str, Any]]:
    """{column: {"shape", "dtype"}} of one step, for the metadata; sizes unknown to us are null."""
    # What a task observes of its columns is its own affair: only those that it passes on unchanged
    # have sizes that are known here.
    described = {}
    for column in contract.columns:
        shape = contract.obs_shapes.get(column)
        sizes = list(shape.shape[1:]) if shape is not None else [None]
        dtype = "uint8" if contract.image(column) else "float32"
        described[column] = {"shape": sizes, "dtype": dtype}
    return described


def flatten(message: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"observation": {"state": x}} -> {"observation/state": x}."""
    flat = {}
    for key, value in message.items():
        name = f"{prefix}{key}"
        flat.update(flatten(value, f"{name}/") if isinstance(value, dict) else {name: value})
    return flat


def read(contract: Contract, values: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], list[str]]:
    """(the policy's observations {name: [T, ...]}, the names of ignored values).

    values: of a message, flattened. T is 1, or To if the message holds the history.

    Raises UserError, in one line, for a missing name, a wrong shape or dtype, or a number that is
    not finite.
    """
    # 1. The value of every column, under its name or its path.
    columns = {}
    ignored = []
    for name, value in values.items():
        # --rename and the data's paths come first, then the name itself.
        column = contract.names.get(name, name.removeprefix(PATH))
        if column in columns:
            raise UserError(f"observation: {column!r} is given twice.")
        if column in contract.columns:
            columns[column] = _column(contract, column, value)
        elif name not in RESERVED:
            ignored.append(name)
    missing = [column for column in contract.columns if column not in columns]
    if missing:
        raise UserError(
            f"observation: {missing[0]!r} is missing; the message has "
            f"{', '.join(ignored + list(columns)) or 'no observation'}; "
            f"{choices(missing[0], contract.columns)}."
        )
    # 2. One step each, or the history of each.
    steps = {column: len(x) for column, x in columns.items()}
    if len(set(steps.values())) > 1 or next(iter(steps.values())) not in (1, contract.observed):
        raise UserError(
            f"observation: steps {steps}; give one step of everything, or the last "
            f"To = {contract.observed} steps of everything, along the first axis."
        )
    return _observe(contract, columns), ignored


def _observe(contract: Contract, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The policy's observation of raw columns [T, ...], with the sizes that it was trained on."""
    sizes = {column: list(x.shape[1:]) for column, x in columns.items()}
    try:
        obs = contract.observe(columns)
    except (ValueError, IndexError) as error:  # numpy's, for columns of another size
        raise UserError(f"observation: sizes {sizes} cannot be read ({error}).") from None
    for name, expected in contract.obs_shapes.items():
        if obs[name].shape[1:] != tuple(expected.shape[1:]):
            raise UserError(
                f"observation: sizes {sizes} give {name!r} {list(obs[name].shape[1:])}, but the "
                f"policy wants {list(expected.shape[1:])}."
            )
        # An observation that overflows float32 is infinite only after the cast.
        _check_finite(name, obs[name])
    return {name: np.asarray(obs[name]) for name in contract.obs_shapes}


def _column(contract: Contract, column: str, value: Any) -> np.ndarray:
    """One value of a message as numbers float [T, D], or as images uint8 [T, H, W, 3]."""
    size = contract.image(column)
    if size is not None:
        return _images(column, value, size)
    # Arrays, numpy's scalars, numbers, and lists of numbers become arrays here.
    try:
        x = np.asarray(value)
    except ValueError:  # lists of different lengths
        x = np.asarray(None)
    if x.dtype.kind not in "buif" or x.ndim > 2:
        raise UserError(
            f"observation: {column!r} must be numbers [D], or [To, D] with the history, but is "
            f"{_kind(value)}."
        )
    _check_finite(column, x)
    # A plain number is one dimension, and one step is a history of one.
    x = np.atleast_1d(x)
    x = x[None] if x.ndim == 1 else x
    # A column that the task changes has no size here: `_observe` compares what comes out of it.
    expected = contract.obs_shapes.get(column)
    if expected is not None and x.shape[1:] != tuple(expected.shape[1:]):
        raise UserError(
            f"observation: {column!r} has {x.shape[1]} numbers, but the policy was trained on "
            f"{expected.shape[1]}."
        )
    return x


def _images(column: str, value: Any, size: tuple[int, ...]) -> np.ndarray:
    """Images uint8 [T, H, W, 3] from an array, or from the bytes of a PNG or a JPEG."""
    wanted = f"uint8 [{', '.join(map(str, size))}]"
    if isinstance(value, bytes) and value.startswith(ENCODED):
        # The header's size is compared before a pixel is decoded.
        pixels, problem = images.decode([value], (size[0], size[1]))
        if problem:
            raise UserError(f"observation: {column!r}: {problem.removeprefix('step 0: ')}.")
        return pixels
    # Nothing is converted: every guess about ranges, axes or sizes would be wrong for somebody.
    is_image = isinstance(value, np.ndarray) and value.dtype == np.uint8
    if not is_image or value.ndim not in (3, 4) or value.shape[-3:] != size:
        hint = ""
        if isinstance(value, np.ndarray) and value.shape[-3:] == (size[2], *size[:2]):
            hint = "; move the axis of the colours to the end"
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
            hint = "; send the camera's own uint8 values"
        elif is_image:
            hint = "; resize it on the robot's side"
        raise UserError(f"observation: {column!r} must be {wanted}, but is {_kind(value)}{hint}.")
    return value if value.ndim == 4 else value[None]


def _check_finite(name: str, x: np.ndarray) -> None:
    """Raises UserError if a number is NaN or infinite."""
    if x.dtype.kind != "f" or np.isfinite(x).all():
        return
    where = [int(i) for i in np.argwhere(~np.isfinite(x))[0]]
    raise UserError(f"observation: {name!r}{where} is {x[tuple(where)]}: not a finite number.")


def _kind(value: Any) -> str:
    """A value's dtype and shape, or its type, for messages."""
    if isinstance(value, (np.ndarray, np.generic)):
        return f"{value.dtype} {list(value.shape)}"
    return f"a value of type {type(value).__name__}"
