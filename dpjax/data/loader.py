"""Batch i is a pure function of (seed, i): there is no iterator, and no state to save.

The stream of windows is one permutation an epoch, end to end, cut into batches: the
remainder of an epoch opens the next one's first batch. So no window is lost and a
data set smaller than a batch works. Low-dim columns lie on the device once, and batches
are gathered inside the jitted step; images stay on the host, and those of a call are
looked up in a thread while the device works on the call before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
import time
from typing import NamedTuple

from flax import struct
import jax
import numpy as np

from dpjax.core.errors import UserError, choices
from dpjax.core.types import Array, Batch
from dpjax.data import mixture as mixture_lib
from dpjax.data.frames import Frames, split
from dpjax.data.mixture import Mixture, permutation


@struct.dataclass
class Table:
    """The data set on the device: what a batch is gathered from.

    columns: {name: [N, ...]} the observed columns and the action, without images.
    rows: [W, Tp] int32, rows of the columns.
    mask: [W, Tp] 1 where the step was recorded, 0 where an edge was repeated.
    obs_keys, action_key: static, which columns are which.
    """

    columns: dict[str, Array]
    rows: Array
    mask: Array
    obs_keys: tuple[str, ...] = struct.field(pytree_node=False)
    action_key: str = struct.field(pytree_node=False)


class Windows(NamedTuple):
    """A data set ready for training.

    table: what lies on the device. frames: {camera: Frames}, on the host.
    observed: [W, To] the rows that each window observes.
    pools: how windows of several sets are mixed; None: each as often as any other.
    """

    table: Table
    frames: dict[str, Frames]
    observed: np.ndarray
    mixture: Mixture | None = None

    def __len__(self) -> int:
        return len(self.observed)

    def inputs(self, ids: np.ndarray) -> "Inputs":
        """What the device needs for the windows ids [...]."""
        rows = self.observed[ids]
        return Inputs(ids, {key: frames.read(rows) for key, frames in self.frames.items()})

    def ids(self, batch_size: int, seed: int, first: int, count: int) -> np.ndarray:
        """The windows [count, B] of `count` global batches from step `first` on."""
        if self.mixture is None:
            return call_indices(len(self), batch_size, seed, first, count)
        ids = mixture_lib.window_ids(self.mixture, seed, first * batch_size, count * batch_size)
        return ids.reshape(count, batch_size)

    def call_inputs(
        self,
        batch_size: int,
        seed: int | Sequence[int],
        first: int,
        count: int,
        *,
        share: slice = slice(None),
    ) -> "Inputs":
        """What a call of `count` steps from step `first` on needs: leaves [count, b, …].

        seed: or those of n trainings side by side: [count, b, n, …]. share: the b rows of
        every global batch that are this process's.
        """
        if isinstance(seed, int):
            return self.inputs(self.ids(batch_size, seed, first, count)[:, share])
        each = [self.ids(batch_size, one, first, count)[:, share] for one in seed]
        return self.inputs(np.stack(each, axis=-1))


class Inputs(NamedTuple):
    """What a step is given: windows ids [..., B], images {camera: [..., B, To, H, W, 3]}."""

    ids: Array
    images: dict[str, Array]


def call_indices(
    num_windows: int, batch_size: int, seed: int, first_step: int, num_steps: int
) -> np.ndarray:
    """The windows [num_steps, B] int32 of the batches from `first_step` on."""
    size = num_steps * batch_size
    position = first_step * batch_size
    pieces = []
    while size > 0:
        epoch, offset = divmod(position, num_windows)
        piece = permutation(num_windows, seed, epoch)[offset : offset + size]
        pieces.append(piece)
        position, size = position + len(piece), size - len(piece)
    return np.concatenate(pieces).reshape(num_steps, batch_size)


def batch_indices(num_windows: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """The windows [B] int32 of batch `step`."""
    return call_indices(num_windows, batch_size, seed, step, 1)[0]


def feed(
    make: Callable[[int, int], Inputs], first: int, total: int, size: int
) -> Iterator[tuple[int, Inputs, float]]:
    """(steps, inputs, seconds waited for them) of one call after the other.

    make: (first step, number of steps) -> the call's inputs; runs in a thread, one call
    ahead. size: steps a call; the last may have fewer.
    """
    with ThreadPoolExecutor(1) as thread:
        counts = [min(size, total - i) for i in range(first, total, size)]
        ahead = thread.submit(make, first, counts[0]) if counts else None
        for k, count in enumerate(counts):
            start = time.perf_counter()
            inputs = ahead.result()
            waited = time.perf_counter() - start
            if k + 1 < len(counts):
                ahead = thread.submit(make, first + (k + 1) * size, counts[k + 1])
            yield count, inputs, waited


def place(
    columns: Mapping[str, np.ndarray | Frames],
    rows: np.ndarray,
    mask: np.ndarray,
    obs_keys: Sequence[str],
    action_key: str,
    num_observed: int,
    mixed: Mixture | None = None,
) -> Windows:
    """Puts on the device the columns {name: [N, ...]} that are used, rows and mask [W, Tp].

    Frames stay where they are. num_observed: To, how many steps of a window are observed.
    mixed: see `Windows.pools`.
    """
    used = dict.fromkeys([*obs_keys, action_key])
    for key in used:
        if key not in columns:
            raise UserError(f"no column {key!r} in the data; {choices(key, columns)}.")
    numbers, images = split({key: columns[key] for key in used})
    table = Table(
        columns={key: jax.device_put(x) for key, x in numbers.items()},
        rows=jax.device_put(np.asarray(rows, np.int32)),
        mask=jax.device_put(np.asarray(mask, np.float32)),
        obs_keys=tuple(obs_keys),
        action_key=action_key,
    )
    return Windows(table, images, np.asarray(rows, np.int32)[:, :num_observed], mixed)


def gather(table: Table, inputs: Inputs, global_row: Array, num_observed: int) -> Batch:
    """The windows inputs.ids [B] as a Batch; pure, to be called inside the jitted step.

    global_row: [B] the rows that these windows are of the global batch.
    num_observed: To, static; actions are given for all Tp steps of the window.
    """
    rows = table.rows[inputs.ids]  # [B, Tp]
    observed = rows[:, :num_observed]  # [B, To]
    numbers = {
        key: table.columns[key][observed] for key in table.obs_keys if key not in inputs.images
    }
    seen = {**numbers, **inputs.images}
    return Batch(
        obs={key: seen[key] for key in table.obs_keys},
        actions=table.columns[table.action_key][rows],
        mask=table.mask[inputs.ids],
        index=global_row,
    )
