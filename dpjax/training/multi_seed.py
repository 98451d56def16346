"""Several trainings side by side in one program; they differ in their seed alone.

Their states are one tree with a leading axis [n], and a step is `vmap`ped over it. Every training
has its own weights, batches and noise, so that it computes what it would compute by itself, up to
the order in which XLA adds. A device that one small network leaves idle trains several in little
more time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def side_by_side(step: Callable, gather: Callable) -> tuple[Callable, Callable]:
    """`step` and `gather` for n trainings; see `parallel.Strategy.repeat` for those of one.

    Leaves of the state are [n, ...], rng is [n] keys, and inputs and batches are [b, n, ...]: the
    examples come first, so that devices share them as they share those of one training.
    """

    def step_all(state, rng, batch, axis=None):
        # State and key lead with the axis of trainings, and so do the metrics; a batch has it
        # behind its examples.
        one = lambda state, rng, batch: step(state, rng, batch, axis=axis)
        return jax.vmap(one, in_axes=(0, 0, 1))(state, rng, batch)

    # One data set for all: the table is not mapped, and neither are the examples' numbers.
    return step_all, jax.vmap(gather, in_axes=(None, 1, None), out_axes=1)


def stack(trees: Sequence[Any]) -> Any:
    """The trees of n trainings as one with leaves [n, ...]; a single tree is returned as it is."""
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def pick(tree: Any, number: int | None) -> Any:
    """Training `number`'s tree of a stacked one, on the host; None if the tree is not stacked."""
    return tree if number is None else jax.tree.map(lambda leaf: leaf[number], tree)
