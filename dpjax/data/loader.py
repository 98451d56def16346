"""Batch i is a pure function of (seed, i), so a resume has no iterator state to restore.

The stream of windows is one permutation per epoch, end to end, cut into batches: the remainder of
an epoch opens the first batch of the next one. So no window is lost, and a data set smaller than a
batch works. Columns of numbers lie on the device once, and batches are gathered inside the jitted
step. Images stay on the host: a thread looks up those of the next call while the device works.

A *call* is one execution of the compiled program, of one or several training steps.
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
from dpjax.data.frames import Column, Frames, split
from dpjax.data.mixture import Mixture, permutation


@struct.dataclass
class Table:
    """The data set on the device, from which batches are gathered.

    columns: {name: [N, ...]}, the observed columns and the action, without images.
    indices: [W, Tp] int32, the steps of each window, into the columns.
    mask: [W, Tp], 1 where the step was recorded, 0 where an edge was repeated.
    obs_keys, action_key: names of the observed columns and of the action (static).
    """

    columns: dict[str, Array]
    indices: Array
    mask: Array
    obs_keys: tuple[str, ...] = struct.field(pytree_node=False)
    action_key: str = struct.field(pytree_node=False)


class Inputs(NamedTuple):
    """The input of a step: window ids [..., B], images {camera: [..., B, To, H, W, 3]}."""

    ids: Array
    images: dict[str, Array]


class Windows(NamedTuple):
    """A data set ready for training.

    table: the part on the device.
    frames: {camera: Frames}, the part on the host.
    observed: [W, To], the steps that each window observes, for looking up images.
    mixture: how windows of several sets are mixed; None: all windows equally often.
    """

    table: Table
    frames: dict[str, Frames]
    observed: np.ndarray
    mixture: Mixture | None = None

    def __len__(self) -> int:
        return len(self.observed)

    def inputs(self, ids: np.ndarray) -> Inputs:
        """The input for the windows with ids [...]."""
        # [..., To] steps of data, the same for every camera.
        steps = self.observed[ids]
        return Inputs(ids, {key: frames.read(steps) for key, frames in self.frames.items()})

    def ids(self, batch_size: int, seed: int, first: int, count: int) -> np.ndarray:
        """Window ids [count, B] of `count` global batches, starting with step `first`."""
        # Position p of the stream is example p % B of batch p // B, in both cases.
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
    ) -> Inputs:
        """The inputs of a call of `count` steps, starting with step `first`: leaves [count, b, …].

        Args:
            seed: one seed, or those of n trainings side by side (leaves [count, b, n, …]).
            share: which b examples of every global batch belong to this process.
        """
        if isinstance(seed, int):
            return self.inputs(self.ids(batch_size, seed, first, count)[:, share])
        # The trainings' axis comes last, behind the one that devices split.
        per_seed = [self.ids(batch_size, one, first, count)[:, share] for one in seed]
        return self.inputs(np.stack(per_seed, axis=-1))


def call_indices(
    num_windows: int, batch_size: int, seed: int, first_step: int, num_steps: int
) -> np.ndarray:
    """Window ids [num_steps, B] int32 of the batches from `first_step` on."""
    # Walk through the stream, taking what is left of each epoch's permutation.
    remaining = num_steps * batch_size
    position = first_step * batch_size  # in the stream of all epochs
    parts = []
    while remaining > 0:
        # Every epoch has one permutation of all windows, whatever the batch size.
        epoch, offset = divmod(position, num_windows)
        part = permutation(num_windows, seed, epoch)[offset : offset + remaining]
        parts.append(part)
        position += len(part)
        remaining -= len(part)
    return np.concatenate(parts).reshape(num_steps, batch_size)


def batch_indices(num_windows: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Window ids [B] int32 of the batch of training step `step`."""
    return call_indices(num_windows, batch_size, seed, step, 1)[0]


def feed(
    make: Callable[[int, int], Inputs], first: int, total: int, size: int
) -> Iterator[tuple[int, Inputs, float]]:
    """Yields (number of steps, inputs, seconds waited for the inputs) of one call after another.

    Args:
        make: (first step, number of steps) -> inputs of the call; runs in a thread, one call
            ahead of the device.
        first, total: from step `first` until `total` steps are done.
        size: steps per call; the last call may have fewer.
    """
    # One thread, so that calls are prepared in order and never more than one ahead.
    with ThreadPoolExecutor(1) as thread:
        counts = [min(size, total - i) for i in range(first, total, size)]
        ahead = thread.submit(make, first, counts[0]) if counts else None
        for k, count in enumerate(counts):
            # What the device would have waited for.
            start = time.perf_counter()
            inputs = ahead.result()
            waited = time.perf_counter() - start
            # The next call's inputs are started before this one's are handed out: the caller is
            # busy with the device until it asks again.
            if k + 1 < len(counts):
                ahead = thread.submit(make, first + (k + 1) * size, counts[k + 1])
            yield count, inputs, waited


def place(
    columns: Mapping[str, Column],
    indices: np.ndarray,
    mask: np.ndarray,
    obs_keys: Sequence[str],
    action_key: str,
    num_observed: int,
    mixture: Mixture | None = None,
) -> Windows:
    """Puts a data set on the device.

    Args:
        columns: {name: [N, ...]}; only those that are used are copied. Frames stay on the host.
        indices, mask: [W, Tp], of `windows.window_indices`.
        obs_keys, action_key: names of the observed columns and of the action.
        num_observed: To, how many steps of a window are observed.
        mixture: see `Windows`.

    Raises:
        UserError: if a named column is missing.
    """
    # A dict, not a set: the columns keep the order of the encoder. The action may be observed too.
    used = dict.fromkeys([*obs_keys, action_key])
    for key in used:
        if key not in columns:
            raise UserError(f"no column {key!r} in the data; {choices(key, columns)}.")
    # Numbers go to the device, images stay on the host.
    numbers, images = split({key: columns[key] for key in used})
    indices = np.asarray(indices, np.int32)
    table = Table(
        columns={key: jax.device_put(x) for key, x in numbers.items()},
        indices=jax.device_put(indices),
        mask=jax.device_put(np.asarray(mask, np.float32)),
        obs_keys=tuple(obs_keys),
        action_key=action_key,
    )
    return Windows(table, images, indices[:, :num_observed], mixture)


def gather(table: Table, inputs: Inputs, index: Array, num_observed: int) -> Batch:
    """The windows inputs.ids [B] as a Batch. Pure: it is called inside the jitted step.

    Args:
        index: [B], the examples' numbers in the global batch.
        num_observed: To (static). Actions are gathered for all Tp steps of a window.
    """
    # Which steps of data each window has, and which of them the policy observes.
    steps = table.indices[inputs.ids]  # [B, Tp]
    observed = steps[:, :num_observed]  # [B, To]
    # [B, To, ...]; images were looked up on the host and come with the inputs.
    numbers = {
        key: table.columns[key][observed] for key in table.obs_keys if key not in inputs.images
    }
    obs = {**numbers, **inputs.images}
    return Batch(
        obs={key: obs[key] for key in table.obs_keys},  # in the order of the encoder
        actions=table.columns[table.action_key][steps],  # [B, Tp, Da]
        mask=table.mask[inputs.ids],
        index=index,
    )
