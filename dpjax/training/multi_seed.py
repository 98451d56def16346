"""Several trainings side by side in one program, which differ in their seed alone.

Their states are one tree with a leading axis [n], and a step is `vmap`ped over it. Every
training has its own weights, its own batches and its own noise: what it would have alone, up
to the order in which XLA adds. A device that one small network leaves idle trains several in
little more time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def side_by_side(step: Callable, gather: Callable) -> tuple[Callable, Callable]:
    """`step` and `gather` of n trainings (see `parallel.Strategy.repeat`).

    The state's leaves lead with [n], rng is [n] keys, inputs are [b, n, …], a batch's leaves
    [b, n, …]: rows come first, so that devices share them as those of one training.
    """

    def step_all(state, rng, batch, axis=None):
        one = lambda state, rng, batch: step(state, rng, batch, axis=axis)
        return jax.vmap(one, in_axes=(0, 0, 1))(state, rng, batch)

    return step_all, jax.vmap(gather, in_axes=(None, 1, None), out_axes=1)


def stack(trees: Sequence[Any]) -> Any:
    """The trees of n trainings as one, its leaves [n, …]; that of a single one as it is."""
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def pick(tree: Any, number: int | None) -> Any:
    """The tree of one training out of a stacked one, on the host; None: it is alone."""
    return tree if number is None else jax.tree.map(lambda leaf: leaf[number], tree)
