"""What the network sees of a camera's images: computed on the device, from uint8.

    resize -> random shift -> crop -> colour jitter

Shift, crop position and colours are random in training, drawn once per example: its To frames
are treated alike. Without keys (evaluation) the crop is of the centre and nothing is random.
Values stay in the units of the data, 0 to 255.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core.types import Array, Observation, PRNGKey

# From RGB to brightness and two coordinates of colour (the NTSC television standard of 1953).
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


class CameraView(NamedTuple):
    """How the network sees one camera.

    resize, crop: height and width in px, or () for none.
    shift: px, the most by which images are moved, edges repeated (Yarats et al. 2021).
    brightness, contrast, saturation: factors are drawn from [1 - x, 1 + x]; 0 for none.
    hue: rotations are drawn from [-x, x], in parts of the circle; 0 for none.
    """

    resize: tuple[int, ...] = ()
    crop: tuple[int, ...] = ()
    shift: int = 0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0


def view_observation(
    views: Mapping[str, CameraView], obs: Observation, keys: PRNGKey | None = None
) -> Observation:
    """Observations with each camera's images [B, To, H, W, 3] as the network sees them.

    keys: [B], one per example, in training; None for the centre.
    """
    viewed = dict(obs)
    for i, (name, view) in enumerate(views.items()):
        # Every camera draws its own numbers.
        camera_keys = None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, i)
        viewed[name] = view_images(view, obs[name], camera_keys)
    return viewed


def view_images(view: CameraView, x: Array, keys: PRNGKey | None) -> Array:
    """One camera: uint8 [B, To, H, W, 3] -> [B, To, h, w, 3], still uint8 if it is only cropped.

    keys: [B], one per example, in training; None for the centre.
    """
    if view.resize:
        shape = (*x.shape[:2], *view.resize, x.shape[-1])
        x = jax.image.resize(x.astype(jnp.float32), shape, "linear")
    if keys is None:
        return center_crop(x, view.crop) if view.crop else x
    # Three keys per example, [3, B].
    shift_keys, crop_keys, color_keys = jnp.moveaxis(
        jax.vmap(lambda key: jax.random.split(key, 3))(keys), 1, 0
    )
    if view.shift:
        # A random crop out of the image with wider edges.
        pad = (view.shift, view.shift)
        wide = jnp.pad(x, ((0, 0), (0, 0), pad, pad, (0, 0)), mode="edge")
        x = random_crop(shift_keys, wide, x.shape[2:4])
    if view.crop:
        x = random_crop(crop_keys, x, view.crop)
    if any((view.brightness, view.contrast, view.saturation, view.hue)):
        x = jax.vmap(lambda key, frames: color_jitter(view, key, frames))(color_keys, x)
    return x


def color_jitter(view: CameraView, key: PRNGKey, x: Array) -> Array:
    """Brightness, contrast, saturation and hue of one example [To, H, W, 3], in this order.

    torchvision's ColorJitter draws the order too; it clips after each, as is done here. The hue
    is rotated in YIQ, which keeps the brightness, not in HSV.
    """
    # Brightness is a factor; contrast is one around the mean, saturation one around gray.
    brightness, contrast, saturation, hue = jax.random.split(key, 4)
    draw = lambda key, x: jax.random.uniform(key, (), minval=-x, maxval=x)
    clip = lambda x: jnp.clip(x, 0.0, 255.0)
    gray = lambda x: (x @ jnp.asarray(YIQ[0], x.dtype))[..., None]
    x = clip(x.astype(jnp.float32) * (1 + draw(brightness, view.brightness)))
    mean = gray(x).mean((-3, -2, -1), keepdims=True)
    x = clip(mean + (x - mean) * (1 + draw(contrast, view.contrast)))
    x = clip(gray(x) + (x - gray(x)) * (1 + draw(saturation, view.saturation)))
    # The hue is an angle in the plane of YIQ's two coordinates of colour.
    angle = 2 * jnp.pi * draw(hue, view.hue)
    cos = jnp.cos(angle)
    sin = jnp.sin(angle)
    rotation = jnp.eye(3).at[1:, 1:].set(jnp.array([[cos, -sin], [sin, cos]]))
    return clip(x @ (np.linalg.inv(YIQ) @ rotation @ YIQ).T)


def center_crop(x: Array, size: tuple[int, int]) -> Array:
    """The middle [h, w]; an odd margin is split as by torchvision (half to even)."""
    top, left = (round((full - part) / 2) for full, part in zip(x.shape[-3:-1], size))
    return x[..., top : top + size[0], left : left + size[1], :]


def random_crop(keys: PRNGKey, x: Array, size: tuple[int, int]) -> Array:
    """A window [h, w] of each example, the same for its To frames; all offsets are as likely.

    keys: [B], one per example.
    """
    margins = [full - part for full, part in zip(x.shape[-3:-1], size)]

    def crop_example(key: PRNGKey, frames: Array) -> Array:
        # randint excludes its upper bound.
        top, left = (
            jax.random.randint(k, (), 0, margin + 1)
            for k, margin in zip(jax.random.split(key), margins)
        )
        shape = (frames.shape[0], *size, frames.shape[-1])
        return jax.lax.dynamic_slice(frames, (0, top, left, 0), shape)

    return jax.vmap(crop_example)(keys, x)
