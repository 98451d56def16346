"""Encoders: from a dict of normalized observations to features [B, To, F]."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from dpjax.nets import crop
from dpjax.nets.resnet import ImageEncoder
from dpjax.types import PRNGKey

Array = jax.Array
Size = tuple[int, int]  # height, width


class Concat(nn.Module):
    """The low-dim keys side by side, in the order of `keys`; it has no parameters."""

    keys: tuple[str, ...]

    @nn.compact
    def __call__(self, obs: dict[str, Array], keys: PRNGKey | None = None) -> Array:
        """obs {key: [B, To, D]} -> [B, To, ΣD]."""
        del keys  # nothing random in it
        return jnp.concatenate([obs[key] for key in self.keys], axis=-1)


class Cameras(nn.Module):
    """The low-dim keys, then what each camera sees, in their order.

    keys: low-dim observations. cameras: image observations, of any sizes.
    crops: height and width of each camera's crop; None leaves its images whole.
    shared: one encoder for all cameras, or one each.
    depth, width, pool, keypoints, features: see `resnet.ImageEncoder`.
    """

    keys: tuple[str, ...]
    cameras: tuple[str, ...]
    crops: tuple[Size | None, ...]
    shared: bool = False
    depth: int = 18
    width: int = 64
    pool: str = "spatial_softmax"
    keypoints: int = 32
    features: int = 64

    def setup(self):
        make = lambda: ImageEncoder(
            self.depth, self.width, self.pool, self.keypoints, self.features
        )
        self.encoders = [make() for _ in range(1 if self.shared else len(self.cameras))]

    def views(self, obs: dict[str, Array], keys: PRNGKey | None = None) -> list[Array]:
        """What the network sees of each camera: crops [B, To, h, w, 3].

        keys: [B], one a row, for random crops in training; None for the centre.
        """
        seen = []
        for i, (name, size) in enumerate(zip(self.cameras, self.crops, strict=True)):
            x = obs[name]
            if size is not None and keys is None:
                x = crop.center(x, size)
            elif size is not None:
                camera_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
                x = crop.random(camera_keys, x, size)
            seen.append(x)
        return seen

    def __call__(self, obs: dict[str, Array], keys: PRNGKey | None = None) -> Array:
        """obs {key: [B, To, D], camera: [B, To, H, W, 3]} -> [B, To, ΣD + cameras features]."""
        parts = [obs[key] for key in self.keys]
        for i, x in enumerate(self.views(obs, keys)):
            h = self.encoders[0 if self.shared else i](x.reshape(-1, *x.shape[2:]))
            parts.append(h.reshape(*x.shape[:2], -1))
        return jnp.concatenate(parts, axis=-1)
