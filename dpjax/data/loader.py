"""Batch i is a pure function of (seed, i): there is no iterator, and no state to save.

The stream of windows is one permutation an epoch, end to end, cut into batches: the
remainder of an epoch opens the next one's first batch. So no window is lost and a
data set smaller than a batch works. The columns lie on the device once, and batches
are gathered inside the jitted step.
"""

from collections.abc import Mapping, Sequence
import functools

from flax import struct
import jax
import numpy as np

from dpjax.errors import UserError, choices
from dpjax.types import Array, Batch


@struct.dataclass
class Table:
    """The data set on the device: what a batch is gathered from.

    columns: {name: [N, ...]} the observed columns and the action.
    rows: [W, Tp] int32, rows of the columns.
    mask: [W, Tp] 1 where the step was recorded, 0 where an edge was repeated.
    obs_keys, action_key: static, which columns are which.
    """

    columns: dict[str, Array]
    rows: Array
    mask: Array
    obs_keys: tuple[str, ...] = struct.field(pytree_node=False)
    action_key: str = struct.field(pytree_node=False)


@functools.lru_cache(maxsize=4)
def _permutation(num_windows: int, seed: int, epoch: int) -> np.ndarray:
    """Cached, since an epoch has many batches and the permutation costs O(W)."""
    order = np.random.default_rng((seed, epoch)).permutation(num_windows).astype(np.int32)
    order.flags.writeable = False
    return order


def call_rows(
    num_windows: int, batch_size: int, seed: int, first_step: int, num_steps: int
) -> np.ndarray:
    """The windows [num_steps, B] int32 of the batches from `first_step` on."""
    size = num_steps * batch_size
    position = first_step * batch_size
    pieces = []
    while size > 0:
        epoch, offset = divmod(position, num_windows)
        piece = _permutation(num_windows, seed, epoch)[offset : offset + size]
        pieces.append(piece)
        position, size = position + len(piece), size - len(piece)
    return np.concatenate(pieces).reshape(num_steps, batch_size)


def batch_rows(num_windows: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """The windows [B] int32 of batch `step`."""
    return call_rows(num_windows, batch_size, seed, step, 1)[0]


def place(
    columns: Mapping[str, np.ndarray],
    rows: np.ndarray,
    mask: np.ndarray,
    obs_keys: Sequence[str],
    action_key: str,
) -> Table:
    """Puts on the device the columns {name: [N, ...]} that are used, rows and mask [W, Tp]."""
    used = dict.fromkeys([*obs_keys, action_key])
    for key in used:
        if key not in columns:
            raise UserError(f"no column {key!r} in the data; {choices(key, columns)}.")
    return Table(
        columns={key: jax.device_put(columns[key]) for key in used},
        rows=jax.device_put(np.asarray(rows, np.int32)),
        mask=jax.device_put(np.asarray(mask, np.float32)),
        obs_keys=tuple(obs_keys),
        action_key=action_key,
    )


def gather(table: Table, ids: Array, global_row: Array, num_observed: int) -> Batch:
    """The windows ids [B] as a Batch; pure, to be called inside the jitted step.

    global_row: [B] the rows that these windows are of the global batch.
    num_observed: To, static; actions are given for all Tp steps of the window.
    """
    rows = table.rows[ids]  # [B, Tp]
    observed = rows[:, :num_observed]  # [B, To]
    return Batch(
        obs={key: table.columns[key][observed] for key in table.obs_keys},
        actions=table.columns[table.action_key][rows],
        mask=table.mask[ids],
        row=global_row,
    )
