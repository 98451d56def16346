"""Crops of image sequences [B, To, H, W, C]: random in training, of the centre otherwise."""

import jax

from dpjax.types import Array, PRNGKey


def center(x: Array, size: tuple[int, int]) -> Array:
    """The middle [h, w]; an odd margin as torchvision splits it (half to even)."""
    top, left = (round((full - part) / 2) for full, part in zip(x.shape[-3:-1], size))
    return x[..., top : top + size[0], left : left + size[1], :]


def random(keys: PRNGKey, x: Array, size: tuple[int, int]) -> Array:
    """A window [h, w] of each sample, the same for its To frames; every offset is as likely.

    keys: [B], one a sample.
    """
    margins = [full - part for full, part in zip(x.shape[-3:-1], size)]

    def one(key, frames):
        top, left = (
            jax.random.randint(k, (), 0, margin + 1)
            for k, margin in zip(jax.random.split(key), margins)
        )
        shape = (frames.shape[0], *size, frames.shape[-1])
        return jax.lax.dynamic_slice(frames, (0, top, left, 0), shape)

    return jax.vmap(one)(keys, x)
