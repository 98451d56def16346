"""The data structures that the packages exchange.

Notation, here and in every docstring of dpjax: `B` batch, `To` observed steps,
`Tp` predicted steps, `Ta` executed steps, `Da` action size, `F` feature size,
`K` noise levels of training, `S` sampling steps, `E` episodes, `N` steps of data,
`W` windows.
"""

from typing import Any, NamedTuple

from flax import struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

ACTION = "action"  # the actions' key in the normalizer and in the data's columns

# Type aliases, which say more about an argument than `jax.Array` or `dict` would.
Array = jax.Array
PRNGKey = jax.Array  # made by `jax.random.key`, not by `jax.random.PRNGKey`
Observation = dict[str, Array]  # {name: [B, To, ...]}
Params = dict[str, Any]  # {"encoder": …, "denoiser": …, "normalizer": Normalizer}
Metrics = dict[str, Array]  # {name: []}


# `struct.dataclass` makes a class a pytree, so that jit, vmap and pmap accept it as an argument.
@struct.dataclass
class Batch:
    """A batch of examples, each of them a window of a demonstration.

    obs: {name: [B, To, ...]} the observed steps, in the units of the data.
    actions: [B, Tp, Da] the actions of all steps of the window, in the same units.
    mask: [B, Tp] 1 for recorded steps, 0 where a step at an edge of the episode is repeated.
    index: [B] int32, each example's number in the global batch. Its noise depends on this
        number alone, so that one device and eight devices draw the same noise.
    """

    obs: Observation
    actions: Array
    mask: Array
    index: Array


@struct.dataclass
class Context:
    """What a denoiser computes from t and cond alone, before it gets x (`Denoiser.prepare`).

    per_level: a tree whose leaves have the noise levels as their first axis: [S, …] while
        sampling, where the sampling loop hands the denoiser one level's slice at a time;
        [B, …] in a training step.
    shared: a tree that is the same at every level, leaves [B, …].
    """

    per_level: Any
    shared: Any


class Problem(NamedTuple):
    """What is denoised, on what it is conditioned, and which of its entries are known.

    x0: [B, Tp, D] the clean data in network units; while sampling, 0 where it is unknown.
    cond: [B, T, F] the features that the denoiser is conditioned on.
    known: bool [Tp, D], the entries that are known beforehand and therefore not denoised;
        None if there are none.
    """

    x0: Array
    cond: Array
    known: Array | None

    def insert_known(self, x: Array) -> Array:
        """x [B, Tp, D] with the known entries of x0 written into it."""
        # `known` [Tp, D] is the same for all examples and broadcasts over the batch.
        return x if self.known is None else jnp.where(self.known, self.x0, x)

    def mask_known(self, change: Array) -> Array:
        """A change or an error of x [B, Tp, D], set to 0 at the known entries."""
        return change if self.known is None else jnp.where(self.known, 0.0, change)


def cast(tree: Any, dtype: DTypeLike) -> Any:
    """The tree with its float32 leaves in another dtype; integers and booleans stay."""
    # Leaves of other dtypes are counts, levels or masks, which must stay exact.
    change = lambda leaf: leaf.astype(dtype) if leaf.dtype == jnp.float32 else leaf
    return jax.tree.map(change, tree)


def example_keys(rng: PRNGKey, index: Array) -> PRNGKey:
    """One key per example: keys [B], `fold_in(rng, i)` for each i of index [B]."""
    # in_axes: the same rng for all examples, one number per example.
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, index)


def split_keys(keys: PRNGKey, num: int) -> PRNGKey:
    """Keys [B] -> keys [num, B], `num` independent keys per example."""
    split = jax.vmap(lambda key: jax.random.split(key, num))(keys)  # [B, num]
    # `num` comes first, so that callers can unpack it into one array of keys per purpose.
    return jnp.moveaxis(split, 1, 0)
