"""Encoders: from a dict of normalized observations to features [B, To, F]."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from dpjax.core.types import PRNGKey
from dpjax.nets.resnet import ImageEncoder

Array = jax.Array


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
    shared: one encoder for all cameras, or one each.
    depth, width, pool, keypoints, features, norm, remat: see `resnet.ImageEncoder`.
    trained: whether gradients flow into the cameras' encoders.
    """

    keys: tuple[str, ...]
    cameras: tuple[str, ...]
    shared: bool = False
    depth: int = 18
    width: int = 64
    pool: str = "spatial_softmax"
    keypoints: int = 32
    features: int = 64
    norm: str = "group"
    trained: bool = True
    remat: bool = False

    def setup(self):
        sizes = (self.depth, self.width, self.pool, self.keypoints, self.features)
        make = lambda: ImageEncoder(*sizes, self.norm, self.remat)
        self.encoders = [make() for _ in range(1 if self.shared else len(self.cameras))]

    def _each(self, obs, of):
        """[(camera's images [B To, H, W, 3], through `of` its encoder)], in the cameras' order."""
        for i, name in enumerate(self.cameras):
            x = obs[name]
            h = of(self.encoders[0 if self.shared else i], x.reshape(-1, *x.shape[2:]))
            yield name, h.reshape(*x.shape[:2], *h.shape[1:])

    def points(self, obs: dict[str, Array]) -> dict[str, Array]:
        """{camera: [B, To, keypoints, 2]} where its maps look, (x, y) in [-1, 1]."""
        return dict(self._each(obs, lambda encoder, x: encoder.points(x)))

    def __call__(self, obs: dict[str, Array], keys: PRNGKey | None = None) -> Array:
        """obs {key: [B, To, D], camera: [B, To, H, W, 3]} -> [B, To, ΣD + cameras features]."""
        del keys  # what is random happens before (`augment.see`)
        seen = dict(self._each(obs, lambda encoder, x: encoder(x)))
        if not self.trained:
            seen = jax.lax.stop_gradient(seen)
        return jnp.concatenate([*(obs[key] for key in self.keys), *seen.values()], axis=-1)
