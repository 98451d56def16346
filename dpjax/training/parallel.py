"""Many steps on many devices: the one file that says how.

`jax.pmap` over a named axis: every device holds the whole state and data set, and
takes its slice of every batch; train_step adds sums and gradients over the axis.
Several optimizer steps run in one call, in a `lax.scan`.
"""

import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np

from dpjax.errors import UserError
from dpjax.types import Array, Batch

AXIS = "devices"


def check_batch(batch_size: int, num_devices: int) -> None:
    """Refuses a global batch that the devices cannot split evenly."""
    if batch_size % num_devices:
        near = max(1, round(batch_size / num_devices)) * num_devices
        raise UserError(
            f"config.train.batch={batch_size} cannot be split over {num_devices} devices: "
            f"use a multiple of {num_devices}, such as {near}."
        )


def replicate(tree: Any, devices: list) -> Any:
    """The same tree on every device: leaves [...] -> [devices, ...]."""
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))

    def place(leaf):
        leaf = np.asarray(leaf)
        shape = (len(devices), *leaf.shape)
        return jax.make_array_from_callback(shape, sharding, lambda _: leaf[None])

    return jax.tree.map(place, tree)


def unreplicate(tree: Any) -> Any:
    """The first device's copy, as numpy arrays on the host."""
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_shards[0].data)[0], tree)


def over_devices(
    step: Callable, gather: Callable[[Any, Array, Array], Batch], devices: list
) -> Callable:
    """`step(state, rng, batch, axis=…)` made into `call(state, rng, table, ids)`.

    state, table: replicated. rng: one key. ids: [n, B] windows of n global batches, on
        the host. gather: `(table, ids [b], rows [b]) -> Batch`.
    Returns the new state (the old one's memory is reused) and metrics {name: [n]}.
    """

    @functools.partial(
        jax.pmap,
        axis_name=AXIS,
        in_axes=(0, None, 0, 0, 0),
        devices=devices,
        donate_argnums=0,
    )
    def call(state, rng, table, ids, rows):
        def one(state, ids):
            return step(state, rng, gather(table, ids, rows), axis=AXIS)

        return jax.lax.scan(one, state, ids)

    def run(state, rng, table, ids):
        steps, batch_size = ids.shape
        share = batch_size // len(devices)
        rows = np.arange(batch_size, dtype=np.int32).reshape(len(devices), share)
        ids = ids.reshape(steps, len(devices), share).transpose(1, 0, 2)
        state, metrics = call(state, rng, table, jnp.asarray(ids), rows)
        return state, unreplicate(metrics)

    return run
