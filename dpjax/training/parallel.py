"""Many steps on many devices: the one file that says how.

`jax.pmap` over a named axis: every device holds the whole state and data set, and
takes its slice of every batch; train_step adds sums and gradients over the axis.
Several optimizer steps run in one call, in a `lax.scan`.
"""

import functools
from typing import Any, Callable

import jax
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
    """`step(state, rng, batch, axis=…)` made into `call(state, rng, table, inputs)`.

    state, table: replicated. rng: one key. inputs: a tree of [n, B, …] for n global
        batches, on the host. gather: `(table, inputs [b, …], rows [b]) -> Batch`.
    Returns the new state (the old one's memory is reused) and metrics {name: [n]}.
    """

    @functools.partial(
        jax.pmap,
        axis_name=AXIS,
        in_axes=(0, None, 0, 0, 0),
        devices=devices,
        donate_argnums=0,
    )
    def call(state, rng, table, inputs, rows):
        def one(state, inputs):
            return step(state, rng, gather(table, inputs, rows), axis=AXIS)

        return jax.lax.scan(one, state, inputs)

    def shares(leaf):
        """[n, B, ...] -> [devices, n, B / devices, ...]."""
        parts = leaf.reshape(len(leaf), len(devices), -1, *leaf.shape[2:])
        return np.moveaxis(parts, 1, 0)

    def run(state, rng, table, inputs):
        batch_size = jax.tree.leaves(inputs)[0].shape[1]
        rows = np.arange(batch_size, dtype=np.int32).reshape(len(devices), -1)
        state, metrics = call(state, rng, table, jax.tree.map(shares, inputs), rows)
        return state, unreplicate(metrics)

    return run
