"""Many steps on many devices: the one file that says how, in two ways.

Both keep the whole state and data set on every device and give each its slice of every
batch, several optimizer steps in one call, in a `lax.scan`. `jax.pmap` runs one device's
program on each, and train_step adds sums and gradients over the named axis. The mesh way
is `jax.jit` on arrays that say how they are spread: the program is that of the global
batch, train_step adds over no axis, and the compiler inserts the sums. A state that is
itself spread over the mesh needs other shardings there and no other step.

With several processes (`distributed`) the devices are those of all of them, and every
process gives and gets what is its own devices'.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np

from dpjax.core import runtime
from dpjax.core.errors import UserError
from dpjax.core.types import Array, Batch

AXIS = "devices"
Gather = Callable[[Any, Array, Array], Batch]


class Strategy(NamedTuple):
    """How steps run on given devices.

    place: a tree on the host -> its copies on the devices. fetch: one copy, numpy again.
    repeat: `step(state, rng, batch, axis=…)` and `gather(table, inputs [b, …], rows [b])
        -> Batch` made into `call(state, rng, table, inputs)`. state, table: placed. rng:
        one key. inputs: a tree of [n, b, …], this process's rows of n global batches, on
        the host. The new state comes back (the old one's memory is reused) and metrics
        {name: [n]}.
    """

    place: Callable[[Any], Any]
    fetch: Callable[[Any], Any]
    repeat: Callable[[Callable, Gather], Callable]


def all_devices() -> list:
    """Of all processes, each one's side by side: its rows of a batch are one slice."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def check_batch(batch_size: int, num_devices: int) -> None:
    """Refuses a global batch that the devices cannot split evenly."""
    if batch_size % num_devices:
        near = max(1, round(batch_size / num_devices)) * num_devices
        raise UserError(
            f"config.train.batch={batch_size} cannot be split over {num_devices} devices: "
            f"use a multiple of {num_devices}, such as {near}."
        )


def local_slice(batch_size: int, devices: list) -> slice:
    """The rows of a global batch that this process's devices work on."""
    own = [i for i, at in enumerate(devices) if at.process_index == jax.process_index()]
    size = batch_size // len(devices)
    return slice(own[0] * size, (own[-1] + 1) * size)


def rows_of(inputs: Any, devices: list) -> np.ndarray:
    """What rows [b] of the global batch this process's inputs [n, b, …] are."""
    num_own = sum(at.process_index == jax.process_index() for at in devices)
    batch_size = jax.tree.leaves(inputs)[0].shape[1] * len(devices) // num_own
    return np.arange(batch_size, dtype=np.int32)[local_slice(batch_size, devices)]


def pmap_strategy(devices: list) -> Strategy:
    """One program a device, of its own rows: `jax.pmap` over the axis.

    Nothing is spread over a single device, and its axis of one would cost: XLA's CPU copied
    an image policy's state once a step, 1.2 GB, and made Adam's moments twice.
    """
    if len(devices) == 1:
        return mesh_strategy(devices)
    own = [at for at in devices if at.process_index == jax.process_index()]
    spread = NamedSharding(jax.sharding.Mesh(np.array(own), (AXIS,)), PartitionSpec(AXIS))

    def put(leaf):
        """[...] -> [own devices, ...]"""
        leaf = np.asarray(leaf)
        shape = (len(own), *leaf.shape)
        return jax.make_array_from_callback(shape, spread, lambda _: leaf[None])

    def split(leaf):
        """[n, b, ...] -> [own devices, n, b / own devices, ...]."""
        parts = leaf.reshape(len(leaf), len(own), -1, *leaf.shape[2:])
        return np.moveaxis(parts, 1, 0)

    def repeat(step, gather):
        options = dict(axis_name=AXIS, in_axes=(0, None, 0, 0, 0), devices=devices)

        @functools.partial(jax.pmap, donate_argnums=0, **options)
        def call(state, rng, table, inputs, rows):
            def one(state, inputs):
                return step(state, rng, gather(table, inputs, rows), axis=AXIS)

            return repeated(one, state, inputs)

        def run(state, rng, table, inputs):
            rows = rows_of(inputs, devices).reshape(len(own), -1)
            state, metrics = call(state, rng, table, jax.tree.map(split, inputs), rows)
            return state, fetch(metrics)

        return run

    fetch = functools.partial(jax.tree.map, lambda leaf: first_copy(leaf)[0])
    return Strategy(functools.partial(jax.tree.map, put), fetch, repeat)


def mesh_strategy(devices: list) -> Strategy:
    """One program of the whole batch, split by the compiler: `jax.jit` on a mesh."""
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_rows = NamedSharding(mesh, PartitionSpec(AXIS))
    by_steps = NamedSharding(mesh, PartitionSpec(None, AXIS))  # [n, B, ...]

    def put(leaf):
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, everywhere, lambda index: leaf[index])

    def repeat(step, gather):
        options = dict(out_shardings=everywhere, compiler_options=runtime.compiler_options())

        @functools.partial(jax.jit, donate_argnums=0, **options)
        def call(state, key, table, inputs, rows):
            rng = jax.random.wrap_key_data(key)

            def one(state, inputs):
                batch = gather(table, inputs, rows)
                return step(state, rng, jax.lax.with_sharding_constraint(batch, by_rows))

            return repeated(one, state, inputs)

        def run(state, rng, table, inputs):
            key = put(jax.random.key_data(rng))
            spread = functools.partial(jax.make_array_from_process_local_data, by_steps)
            rows = jax.make_array_from_process_local_data(by_rows, rows_of(inputs, devices))
            state, metrics = call(state, key, table, jax.tree.map(spread, inputs), rows)
            return state, fetch(metrics)

        return run

    fetch = functools.partial(jax.tree.map, first_copy)
    return Strategy(functools.partial(jax.tree.map, put), fetch, repeat)


def repeated(one: Callable, state, inputs):
    """`one(state, inputs[i]) -> (state, metrics)` for all i, in a scan; no loop for a single."""
    if len(jax.tree.leaves(inputs)[0]) > 1:
        return jax.lax.scan(one, state, inputs)
    state, metrics = one(state, jax.tree.map(lambda leaf: leaf[0], inputs))
    return state, jax.tree.map(lambda leaf: leaf[None], metrics)


def one_by_one(call: Callable) -> Callable:
    """`call` of a single step, made n times, in place of one scan over n steps.

    XLA's CPU takes ten times as long for a 2-D convolution inside a loop (measured:
    2,530 against 196 ms a ResNet-18 of width 16 and its gradient, 128 images of 66 px).
    """
    at = lambda inputs, i: jax.tree.map(lambda leaf: leaf[i : i + 1], inputs)

    def run(state, rng, table, inputs):
        metrics = []
        for i in range(len(jax.tree.leaves(inputs)[0])):
            state, values = call(state, rng, table, at(inputs, i))
            metrics.append(values)
        return state, jax.tree.map(lambda *x: np.concatenate(x), *metrics)

    return run


def first_copy(leaf: Array) -> np.ndarray:
    """What lies on the first of this process's devices."""
    return np.asarray(leaf.addressable_shards[0].data)


STRATEGIES = {"pmap": pmap_strategy, "mesh": mesh_strategy}
