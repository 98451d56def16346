"""Reads what a request says about itself, and requests of whole batches (endpoint `plan`)."""

from collections.abc import Mapping
import math
import time
from typing import Any, NamedTuple

import numpy as np

from dpjax.core.errors import UserError, choices
from dpjax.serving.contract import Contract
from dpjax.serving.session import Ask

KEY_WORDS = 2  # uint32 words of a key of jax's default generator
LARGEST = (1 << 31) - 1  # what an int32 holds
MAX_ID = 64  # characters of an id


class Batch(NamedTuple):
    """A request of endpoint `plan`: what `sample_actions` takes.

    key_data: uint32 [B, 2]. obs: {name: [B, To, ...]}. previous: [B, Tp, Da] or None.
    committed: int32 [B] or None.
    """

    key_data: np.ndarray
    obs: dict[str, np.ndarray]
    previous: np.ndarray | None
    committed: np.ndarray | None


def read_ask(values: Mapping[str, Any], contract: Contract) -> Ask:
    """The extensions of a request, which began now. Raises UserError for impossible values."""
    # A duration and not a time: the clocks of two machines differ.
    milliseconds = values.get("dpjax/deadline_ms")
    deadline = math.inf
    if milliseconds is not None:
        is_number = isinstance(milliseconds, (int, float, np.integer, np.floating))
        if not is_number or not 0 < milliseconds < math.inf:
            raise UserError("dpjax/deadline_ms must be a number above 0.")
        deadline = time.monotonic() + float(milliseconds) / 1e3
    return Ask(
        step=_integer(values, "dpjax/step", LARGEST),
        committed=_integer(values, "dpjax/committed", contract.executed),
        seed=_integer(values, "dpjax/seed", LARGEST),
        deadline=deadline,
    )


def read_id(values: Mapping[str, Any]) -> int | str | None:
    """The id of a request, which its reply repeats."""
    request_id = values.get("dpjax/id")
    is_short = not isinstance(request_id, str) or len(request_id) <= MAX_ID
    if request_id is not None and not (isinstance(request_id, (int, str)) and is_short):
        raise UserError(f"dpjax/id must be an integer, or a text of at most {MAX_ID} characters.")
    return request_id


def read_batch(contract: Contract, message: Mapping[str, Any]) -> Batch:
    """The batch of a request of endpoint `plan`; raises UserError for anything that does not fit.

    The names and shapes are those of `sample_actions`: observations after `Task.observe`.
    """
    values = message.get("obs")
    if not isinstance(values, dict):
        raise UserError("plan: 'obs' must be a map of observations [B, To, ...].")
    # 1. The observations. The first one says how many examples there are.
    obs = {}
    batch_size = None
    for name, expected in contract.obs_shapes.items():
        if name not in values:
            raise UserError(f"plan: obs lacks {name!r}; {choices(name, contract.obs_shapes)}.")
        # Images stay as they are, and any numbers become float32.
        kinds = "u" if expected.dtype == np.uint8 else "buif"
        obs[name] = _array(f"obs {name!r}", values[name], expected.shape, kinds, batch_size)
        obs[name] = obs[name].astype(expected.dtype, copy=False)
        if not np.isfinite(obs[name]).all():
            raise UserError(f"plan: obs {name!r} holds numbers that are not finite.")
        batch_size = len(obs[name])
    # 2. One key per example, as its words.
    key_data = _array("key", message.get("key"), (KEY_WORDS,), "u", batch_size)
    # 3. What only some policies read.
    previous = message.get("previous")
    if previous is not None:  # NaN in it is how unknown steps are marked
        shape = (contract.predicted, contract.action)
        previous = _array("previous", previous, shape, "f", batch_size).astype(np.float32)
    committed = message.get("committed")
    if committed is not None:
        committed = _array("committed", committed, (), "iu", batch_size).astype(np.int32)
        if (committed < 0).any() or (committed > contract.predicted).any():
            raise UserError(f"plan: committed must be from 0 to {contract.predicted}.")
    return Batch(key_data.astype(np.uint32), obs, previous, committed)


def _array(
    name: str, value: Any, shape: tuple[int, ...], kinds: str, batch_size: int | None
) -> np.ndarray:
    """An array [B, *shape] of a request; kinds: of numpy's dtypes."""
    is_array = isinstance(value, np.ndarray) and value.ndim == 1 + len(shape)
    if not is_array or value.dtype.kind not in kinds or value.shape[1:] != tuple(shape):
        what = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else "missing"
        raise UserError(f"plan: {name} must be [B, {', '.join(map(str, shape))}], but is {what}.")
    if len(value) < 1 or (batch_size is not None and len(value) != batch_size):
        raise UserError(f"plan: {name} is of {len(value)} examples, obs of {batch_size or 0}.")
    return value


def _integer(values: Mapping[str, Any], name: str, largest: int) -> int | None:
    """An integer from 0 to `largest`; None if it was not sent."""
    number = values.get(name)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
        raise UserError(f"{name} must be an integer.")
    if not 0 <= number <= largest:
        raise UserError(f"{name}={number} must be from 0 to {largest}.")
    return int(number)
