"""Batch i is a pure function of (seed, i), so a resume has no iterator state to restore.

Each epoch is one permutation of all windows. The permutations form one stream, which is cut into
batches: a batch may hold the end of one epoch and the start of the next. So no window is dropped,
and a data set may be smaller than a batch. Columns of numbers are on the device, and the jitted
step gathers its batches from them. Images stay on the host, where a thread reads those of the next
call while the device works.

A *call* is one execution of the compiled program, which does one or more training steps.
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
    indices: [W, Tp] int32, the steps of each window, as positions in the columns.
    mask: [W, Tp], 1 for a recorded step, 0 for padding (the first or last step repeated).
    obs_keys, action_key: names of the observed columns and of the action (static).
    """

    columns: dict[str, Array]
    indices: Array
    mask: Array
    # Static: jit compiles anew if they change.
    obs_keys: tuple[str, ...] = struct.field(pytree_node=False)
    action_key: str = struct.field(pytree_node=False)


class Inputs(NamedTuple):
    """The input of a training step.

    ids: [..., B], the windows of the batch.
    images: {camera: [..., B, To, H, W, 3]}, what these windows observe.
    """

    ids: Array
    images: dict[str, Array]


class Windows(NamedTuple):
    """A data set ready for training.

    table: the part on the device.
    frames: {camera: Frames}, the part on the host.
    observed: [W, To], the steps that each window observes, to read its images by.
    mixture: how windows of several data sets are mixed; None: all windows equally often.
    """

    table: Table
    frames: dict[str, Frames]
    observed: np.ndarray
    mixture: Mixture | None = None

    def __len__(self) -> int:
        return len(self.observed)

    def inputs(self, ids: np.ndarray) -> Inputs:
        """The input for the windows with ids [...]."""
        # The same steps for every camera.
        steps = self.observed[ids]  # [..., To]
        return Inputs(ids, {key: frames.read(steps) for key, frames in self.frames.items()})

    def ids(self, batch_size: int, seed: int, first: int, count: int) -> np.ndarray:
        """Window ids [count, B] of `count` global batches, starting with step `first`."""
        # Position p of the stream is example p % B of batch p // B, with and without a mixture.
        if self.mixture is None:
            return call_indices(len(self), batch_size, seed, first, count)
        # The stretch of the mixed stream that these batches cover, then cut into batches.
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
            share: the b examples of every global batch that this process works on.
        """
        # All windows of the global batch are drawn; only those of this process are read.
        if isinstance(seed, int):
            return self.inputs(self.ids(batch_size, seed, first, count)[:, share])
        # Several trainings: each draws its own windows. Their axis comes last, since the devices
        # split the axis of examples in front of it.
        per_seed = [self.ids(batch_size, one, first, count)[:, share] for one in seed]
        return self.inputs(np.stack(per_seed, axis=-1))


def call_indices(
    num_windows: int, batch_size: int, seed: int, first_step: int, num_steps: int
) -> np.ndarray:
    """Window ids [num_steps, B] int32 of the batches from `first_step` on."""
    # Go through the stream epoch by epoch until all windows of the call are taken.
    remaining = num_steps * batch_size
    position = first_step * batch_size  # in the stream of all epochs
    parts = []
    while remaining > 0:
        # The permutation depends on seed and epoch only, so the batch size does not change it.
        epoch, offset = divmod(position, num_windows)
        # The slice ends with the epoch if that has fewer windows than are still needed.
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
    """Yields (number of steps, inputs, seconds waited for the inputs) for each call in turn.

    Args:
        make: (first step, number of steps) -> inputs of the call. It runs in a thread, one call
            ahead of the device.
        first, total: the range of steps to do: `first`, …, `total` - 1.
        size: steps per call; the last call may have fewer.
    """
    # One thread: inputs are prepared in order, and at most one call ahead.
    with ThreadPoolExecutor(1) as thread:
        counts = [min(size, total - i) for i in range(first, total, size)]
        # The first call's inputs; there is no call if all steps are done already.
        ahead = thread.submit(make, first, counts[0]) if counts else None
        for k, count in enumerate(counts):
            # The time that the device is idle because its inputs are not ready.
            start = time.perf_counter()
            inputs = ahead.result()
            waited = time.perf_counter() - start
            # The next inputs are started before these are yielded: the thread prepares them while
            # the caller runs the device.
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
        indices, mask: [W, Tp], from `windows.window_indices`.
        obs_keys, action_key: names of the observed columns and of the action.
        num_observed: To, the number of steps that the policy observes, the first of a window.
        mixture: see `Windows`.

    Raises:
        UserError: if a named column is missing.
    """
    # A dict and not a set, to keep the order. It also removes a duplicate: the action may be an
    # observed column as well.
    used = dict.fromkeys([*obs_keys, action_key])
    for key in used:
        if key not in columns:
            raise UserError(f"no column {key!r} in the data; {choices(key, columns)}.")
    # Numbers go to the device, images stay on the host.
    numbers, images = split({key: columns[key] for key in used})
    # int32 is enough for 2^31 steps and takes half the memory of int64.
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
    """The windows inputs.ids [B] as a Batch. A pure function: the jitted step calls it.

    Args:
        index: [B], the position of each example in the global batch.
        num_observed: To (static). Actions are gathered for all Tp steps of a window.
    """
    # The steps of each window; the policy observes the first To of them.
    steps = table.indices[inputs.ids]  # [B, Tp]
    observed = steps[:, :num_observed]  # [B, To]
    # Observed numbers [B, To, ...] are gathered here; images were read on the host.
    numbers = {
        key: table.columns[key][observed] for key in table.obs_keys if key not in inputs.images
    }
    obs = {**numbers, **inputs.images}
    return Batch(
        obs={key: obs[key] for key in table.obs_keys},  # in the order that the encoder expects
        actions=table.columns[table.action_key][steps],  # [B, Tp, Da]
        mask=table.mask[inputs.ids],
        index=index,
    )
