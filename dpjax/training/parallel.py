"""Parallelism strategies: many training steps on many devices. Only this file uses pmap.

Both strategies are data parallel. Every device has the whole state and data set and works on its
part of every batch. A call does several optimizer steps in a `lax.scan`.

    pmap   `jax.pmap` runs a program for one device on each of them. train_step adds losses and
           gradients over the named axis.
    mesh   `jax.jit` compiles a program for the global batch, whose arrays are sharded. train_step
           adds over no axis: the compiler inserts the sums over devices. To shard the state as
           well, only the shardings in this file would have to change.

With several processes (see `distributed`) the devices are those of all processes. Each process
provides the inputs of its own devices and receives their results.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple, Protocol

import jax
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np

from dpjax.core import runtime
from dpjax.core.errors import UserError
from dpjax.core.types import Array, Batch, Metrics

AXIS = "devices"  # the name of the axis of devices, the only one in both strategies
# (table, inputs with leaves [b, ...], index [b]) -> Batch, as `dpjax.data.loader.gather`.
Gather = Callable[[Any, Any, Array], Batch]


class Call(Protocol):
    """Several training steps in one execution of a compiled program."""

    def __call__(self, state: Any, rng: Array, table: Any, inputs: Any) -> tuple[Any, Metrics]:
        """Returns the state after n steps, and metrics {name: [n]} on the host.

        state, table: placed by the strategy. The state is donated: it cannot be used afterwards.
        rng: the run's key.
        inputs: a tree with leaves [n, b, ...] on the host, this process's part of n batches.
        """
        ...


class Strategy(NamedTuple):
    """How training steps run on a list of devices.

    place: a tree on the host -> a copy of it on every device.
    fetch: a placed tree -> one of its copies, as numpy arrays.
    repeat: (step, gather) -> Call, where step(state, rng, batch, axis=...) is `train_step`.
    """

    place: Callable[[Any], Any]
    fetch: Callable[[Any], Any]
    repeat: Callable[[Callable, Gather], Call]


def all_devices() -> list[jax.Device]:
    """The devices of all processes, sorted so that each process's part of a batch is one slice."""
    # jax.devices() need not be in the order of processes.
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def check_batch(batch_size: int, num_devices: int) -> None:
    """Raises a UserError if the devices cannot split a global batch evenly."""
    if batch_size % num_devices:
        # The nearest multiple, and at least one example per device.
        near = max(1, round(batch_size / num_devices)) * num_devices
        raise UserError(
            f"batch_size={batch_size} cannot be split over {num_devices} devices: "
            f"use a multiple of {num_devices}, such as {near}.",
            argument="batch_size",
        )


def local_slice(batch_size: int, devices: Sequence[jax.Device]) -> slice:
    """The examples of a global batch that this process's devices work on."""
    # The devices are sorted by process, so those of this process are consecutive.
    local = [i for i, at in enumerate(devices) if at.process_index == jax.process_index()]
    size = batch_size // len(devices)
    return slice(local[0] * size, (local[-1] + 1) * size)


def global_index(inputs: Any, devices: Sequence[jax.Device]) -> np.ndarray:
    """[b] int32, the positions of this process's inputs [n, b, ...] in the global batch."""
    # The inputs are this process's part of a batch. The size of the whole batch follows from its
    # share of the devices.
    num_local = sum(at.process_index == jax.process_index() for at in devices)
    batch_size = jax.tree.leaves(inputs)[0].shape[1] * len(devices) // num_local
    return np.arange(batch_size, dtype=np.int32)[local_slice(batch_size, devices)]


def pmap_strategy(devices: Sequence[jax.Device]) -> Strategy:
    """One program per device, each with its own examples: `jax.pmap` over the axis."""
    # With an axis of size one, XLA's CPU backend copied an image policy's state once per step
    # (1.2 GB) and computed Adam's moments twice. So a single device uses the mesh strategy.
    if len(devices) == 1:
        return mesh_strategy(devices)
    local = [at for at in devices if at.process_index == jax.process_index()]
    by_device = NamedSharding(jax.sharding.Mesh(np.array(local), (AXIS,)), PartitionSpec(AXIS))

    def put(leaf):
        """[...] -> [local devices, ...], a copy for each device."""
        leaf = np.asarray(leaf)
        shape = (len(local), *leaf.shape)
        return jax.make_array_from_callback(shape, by_device, lambda _: leaf[None])

    def split(leaf):
        """[n, b, ...] -> [local devices, n, b / local devices, ...]."""
        # pmap maps over the first axis, which has one element per local device.
        parts = leaf.reshape(len(leaf), len(local), -1, *leaf.shape[2:])
        return np.moveaxis(parts, 1, 0)

    def repeat(step, gather):
        # Mapped over devices (0): state, table, inputs and index. The key is the same for all.
        options = dict(axis_name=AXIS, in_axes=(0, None, 0, 0, 0), devices=devices)

        # The state is donated: its memory is reused for the next state.
        @functools.partial(jax.pmap, donate_argnums=0, **options)
        def call(state, rng, table, inputs, index):
            def one(state, inputs):
                return step(state, rng, gather(table, inputs, index), axis=AXIS)

            return scan(one, state, inputs)

        def run(state, rng, table, inputs):
            # The positions of each device's examples in the global batch, which seed their noise.
            index = global_index(inputs, devices).reshape(len(local), -1)
            state, metrics = call(state, rng, table, jax.tree.map(split, inputs), index)
            return state, fetch(metrics)

        return run

    fetch = functools.partial(jax.tree.map, lambda leaf: first_copy(leaf)[0])
    return Strategy(functools.partial(jax.tree.map, put), fetch, repeat)


def mesh_strategy(devices: Sequence[jax.Device]) -> Strategy:
    """One program of the global batch, which the compiler splits: `jax.jit` on a mesh."""
    # The shardings: copied to every device, or split along the axis of examples.
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_example = NamedSharding(mesh, PartitionSpec(AXIS))  # [B, ...]
    by_step = NamedSharding(mesh, PartitionSpec(None, AXIS))  # [n, B, ...]
    combine = jax.make_array_from_process_local_data

    def put(leaf):
        # Each device asks for its part of the array by index, which here is all of it.
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, everywhere, lambda index: leaf[index])

    def repeat(step, gather):
        options = dict(out_shardings=everywhere, compiler_options=runtime.compiler_options())

        # XLA names the program after this function: profiles and tests look for "jit_call".
        @functools.partial(jax.jit, donate_argnums=0, **options)
        def call(state, key, table, inputs, index):
            rng = jax.random.wrap_key_data(key)

            def one(state, inputs):
                # Only the batch is told to be split; the compiler derives all other shardings.
                batch = gather(table, inputs, index)
                return step(state, rng, jax.lax.with_sharding_constraint(batch, by_example))

            return scan(one, state, inputs)

        def run(state, rng, table, inputs):
            # A key cannot be converted to numpy, so its data is placed and wrapped in `call`.
            key = put(jax.random.key_data(rng))
            # Combine the examples of all processes into arrays of the global batch.
            index = combine(by_example, global_index(inputs, devices))
            inputs = jax.tree.map(functools.partial(combine, by_step), inputs)
            state, metrics = call(state, key, table, inputs, index)
            return state, fetch(metrics)

        return run

    fetch = functools.partial(jax.tree.map, first_copy)
    return Strategy(functools.partial(jax.tree.map, put), fetch, repeat)


def scan(one: Callable, state: Any, inputs: Any) -> tuple[Any, Any]:
    """`one(state, inputs[i]) -> (state, metrics)` for all i in order; metrics are stacked."""
    # One loop on the device for n steps, so that the host starts one program per call.
    if len(jax.tree.leaves(inputs)[0]) > 1:
        return jax.lax.scan(one, state, inputs)
    # A single step needs no loop. Inside a loop some operations are slow (see `one_by_one`).
    state, metrics = one(state, jax.tree.map(lambda leaf: leaf[0], inputs))
    return state, jax.tree.map(lambda leaf: leaf[None], metrics)


def one_by_one(call: Call) -> Call:
    """A call with the same results that runs n programs of one step each instead of one scan.

    XLA's CPU backend is ten times as slow for 2-D convolutions inside a loop: a ResNet-18 of width
    16 and its gradient, for 128 images of 66 px, took 2,530 ms instead of 196 ms.
    """
    # [n, b, ...] -> [1, b, ...]; the slice keeps the axis of steps.
    at = lambda inputs, i: jax.tree.map(lambda leaf: leaf[i : i + 1], inputs)

    def run(state, rng, table, inputs):
        # Every step returns metrics [1], which are joined to [n] at the end.
        metrics = []
        for i in range(len(jax.tree.leaves(inputs)[0])):
            state, values = call(state, rng, table, at(inputs, i))
            metrics.append(values)
        return state, jax.tree.map(lambda *x: np.concatenate(x), *metrics)

    return run


def first_copy(leaf: Array) -> np.ndarray:
    """The part of an array that is on the first of this process's devices."""
    # Arrays of other processes' devices cannot be read here, only the local ones.
    return np.asarray(leaf.addressable_shards[0].data)


STRATEGIES = {"pmap": pmap_strategy, "mesh": mesh_strategy}
