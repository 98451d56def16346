"""What a camera's images go through before the network, on the device, from uint8.

    resize -> random shift -> crop -> colour jitter

Shift, crop position and colours are random in training, one draw a sample: the To frames
of a sample are treated alike. Without keys (evaluation) the crop is of the centre and
nothing else is random. Units stay those of the data, 0..255.

Crops of image sequences [B, To, H, W, C]: random in training, of the centre otherwise.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core.types import Array, Observation, PRNGKey

# Brightness and two coordinates of colour (the television standard's of 1953).
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


class View(NamedTuple):
    """How one camera is seen.

    resize, crop: height and width, or () for none.
    shift: px, images are moved by up to so much, edges repeated (Yarats et al. 2021).
    brightness, contrast, saturation: factors are drawn from [1 - x, 1 + x]; 0 for none.
    hue: turns are drawn from [-x, x], in parts of the circle; 0 for none.
    """

    resize: tuple[int, ...] = ()
    crop: tuple[int, ...] = ()
    shift: int = 0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0


def see(views: Mapping[str, View], obs: Observation, keys: PRNGKey | None = None) -> Observation:
    """Observations with each camera's images [B, To, H, W, 3] as the network sees them.

    keys: [B], one a row, in training; None for the centre.
    """
    seen = dict(obs)
    for i, (name, view) in enumerate(views.items()):
        own = None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, i)
        seen[name] = one(view, obs[name], own)
    return seen


def one(view: View, x: Array, keys: PRNGKey | None) -> Array:
    """One camera: uint8 [B, To, H, W, 3] -> [B, To, h, w, 3], uint8 where it is only cut."""
    if view.resize:
        shape = (*x.shape[:2], *view.resize, x.shape[-1])
        x = jax.image.resize(x.astype(jnp.float32), shape, "linear")
    if keys is None:
        return center_crop(x, view.crop) if view.crop else x
    shift_keys, crop_keys, color_keys = jnp.moveaxis(
        jax.vmap(lambda key: jax.random.split(key, 3))(keys), 1, 0
    )
    if view.shift:
        pad = (view.shift, view.shift)
        wide = jnp.pad(x, ((0, 0), (0, 0), pad, pad, (0, 0)), mode="edge")
        x = random_crop(shift_keys, wide, x.shape[2:4])
    if view.crop:
        x = random_crop(crop_keys, x, view.crop)
    if any((view.brightness, view.contrast, view.saturation, view.hue)):
        x = jax.vmap(lambda key, frames: jitter(view, key, frames))(color_keys, x)
    return x


def jitter(view: View, key: PRNGKey, x: Array) -> Array:
    """Brightness, contrast, saturation and hue of one sample [To, H, W, 3], in this order.

    Torchvision's ColorJitter draws the order too, and clips after each as is done here;
    the hue is turned in YIQ, which keeps the brightness, rather than in HSV.
    """
    brightness, contrast, saturation, hue = jax.random.split(key, 4)
    draw = lambda key, x: jax.random.uniform(key, (), minval=-x, maxval=x)
    clip = lambda x: jnp.clip(x, 0.0, 255.0)
    gray = lambda x: (x @ jnp.asarray(YIQ[0], x.dtype))[..., None]
    x = clip(x.astype(jnp.float32) * (1 + draw(brightness, view.brightness)))
    mean = gray(x).mean((-3, -2, -1), keepdims=True)
    x = clip(mean + (x - mean) * (1 + draw(contrast, view.contrast)))
    x = clip(gray(x) + (x - gray(x)) * (1 + draw(saturation, view.saturation)))
    angle = 2 * jnp.pi * draw(hue, view.hue)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turn = jnp.eye(3).at[1:, 1:].set(jnp.array([[cos, -sin], [sin, cos]]))
    return clip(x @ (np.linalg.inv(YIQ) @ turn @ YIQ).T)


def center_crop(x: Array, size: tuple[int, int]) -> Array:
    """The middle [h, w]; an odd margin as torchvision splits it (half to even)."""
    top, left = (round((full - part) / 2) for full, part in zip(x.shape[-3:-1], size))
    return x[..., top : top + size[0], left : left + size[1], :]


def random_crop(keys: PRNGKey, x: Array, size: tuple[int, int]) -> Array:
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
