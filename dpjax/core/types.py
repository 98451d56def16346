"""The data that travels between the layers.

Notation, here and in every docstring of dpjax: `B` batch, `To` observed steps,
`Tp` predicted steps, `Ta` executed steps, `Da` action size, `F` feature size,
`K` noise levels of training, `S` sampling steps, `E` episodes, `N` steps of data,
`W` windows.
"""

from typing import Any, NamedTuple

from flax import struct
import jax
import jax.numpy as jnp

ACTION = "action"  # the actions' key in the normalizer


Array = jax.Array
PRNGKey = jax.Array
Observation = dict[str, Array]  # {name: [B, To, ...]}
Params = dict[str, Any]  # {"encoder": …, "denoiser": …, "normalizer": Normalizer}
Metrics = dict[str, Array]


@struct.dataclass
class Batch:
    """Windows of demonstrations.

    obs: {name: [B, To, ...]} the observed steps, in the units of the data.
    actions: [B, Tp, Da] the actions of all the window's steps, in the same units.
    mask: [B, Tp] 1 where the step was recorded, 0 where an edge was repeated.
    index: [B] int32, the example's number in the global batch; its noise depends on it
        and on nothing else, so that one device and eight draw the same numbers.
    """

    obs: Observation
    actions: Array
    mask: Array
    index: Array


@struct.dataclass
class Context:
    """What a denoiser computes before it sees x (`prepare`), in two parts.

    step: a tree whose leaves lead with the noise levels: [S, …] in a sampler, which
        hands the denoiser one level's slice at a time; [B, …] in a training step.
    plan: a tree that is the same at every level, leaves [B, …].
    """

    step: Any
    plan: Any


class Problem(NamedTuple):
    """What is denoised, on what condition, and what of it is known already.

    x0: [B, Tp, D] in network units; while sampling, 0 where it is not known.
    cond: [B, T, F] what the denoiser is conditioned on.
    known: bool [Tp, D], what is given and not denoised; None for nothing.
    """

    x0: Array
    cond: Array
    known: Array | None

    def give(self, x: Array) -> Array:
        """x [B, Tp, D] with what is known written into it."""
        return x if self.known is None else jnp.where(self.known, self.x0, x)

    def still(self, change: Array) -> Array:
        """A change or an error of x [B, Tp, D], 0 where x is known."""
        return change if self.known is None else jnp.where(self.known, 0.0, change)


def cast(tree: Any, dtype) -> Any:
    """The float32 leaves in another dtype; integers and booleans stay."""
    change = lambda leaf: leaf.astype(dtype) if leaf.dtype == jnp.float32 else leaf
    return jax.tree.map(change, tree)


def example_keys(rng: PRNGKey, rows: Array) -> PRNGKey:
    """One key a row, `fold_in(rng, r)`: [B] keys from one key and rows [B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, rows)


def split_keys(keys: Array, num: int) -> Array:
    """[B] keys -> [num, B] keys."""
    return jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, num))(keys), 1, 0)
