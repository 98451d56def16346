"""Several trainings side by side in one program, which differ only in their seed.

Their states are one tree with a leading axis [n], and a training step is `vmap`ped over it. Every
training has its own weights, batches and noise, so its results are those of a separate run, up to
the order in which XLA adds. One small network does not use a whole device: several trainings take
little more time than one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def side_by_side(step: Callable, gather: Callable) -> tuple[Callable, Callable]:
    """`step` and `gather` for n trainings, from those for one (see `parallel.Strategy.repeat`).

    Leaves of the state are [n, ...], rng is [n] keys, and inputs and batches are [b, n, ...]. The
    axis of examples comes first, since it is the one that is split over devices.
    """

    def step_all(state, rng, batch, axis=None):
        # The axis of trainings is axis 0 of state, key and metrics, and axis 1 of the batch.
        # `axis` is a name and not an array, so it is bound here.
        one = lambda state, rng, batch: step(state, rng, batch, axis=axis)
        return jax.vmap(one, in_axes=(0, 0, 1))(state, rng, batch)

    # All trainings share the data set and the positions in the batch: None means not mapped.
    return step_all, jax.vmap(gather, in_axes=(None, 1, None), out_axes=1)


def stack(trees: Sequence[Any]) -> Any:
    """The trees of n trainings as one with leaves [n, ...]; a single tree is returned as it is."""
    # A single training has no axis of trainings, and uses the step without vmap.
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def pick(tree: Any, number: int | None) -> Any:
    """The tree of training `number` from a stacked tree; the tree itself if `number` is None."""
    # None: a single training, whose tree `stack` left as it was.
    return tree if number is None else jax.tree.map(lambda leaf: leaf[number], tree)
