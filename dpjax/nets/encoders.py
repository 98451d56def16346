"""Encoders: from a dict of normalized observations to features [B, To, F]."""

from flax import linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


class Concat(nn.Module):
    """The low-dim keys side by side, in the order of `keys`; it has no parameters."""

    keys: tuple[str, ...]

    @nn.compact
    def __call__(self, obs: dict[str, Array], train: bool = False) -> Array:
        """obs {key: [B, To, D]} -> [B, To, ΣD]."""
        return jnp.concatenate([obs[key] for key in self.keys], axis=-1)
