"""Encoders: from a dict of normalized observations to features [B, To, F]."""

from collections.abc import Callable, Iterator, Mapping

from flax import linen as nn
import jax
import jax.numpy as jnp

from dpjax.core.types import PRNGKey
from dpjax.nets.resnet import ImageEncoder

Array = jax.Array


class Concat(nn.Module):
    """The low-dim observations side by side, in the order of `keys`; it has no parameters."""

    keys: tuple[str, ...]

    @nn.compact
    def __call__(self, obs: Mapping[str, Array], keys: PRNGKey | None = None) -> Array:
        """obs {key: [B, To, D]} -> [B, To, ΣD]."""
        del keys  # nothing is random
        return jnp.concatenate([obs[key] for key in self.keys], axis=-1)


class Cameras(nn.Module):
    """The low-dim observations, then the features of each camera, side by side.

    keys: low-dim observations. cameras: image observations, of any sizes.
    shared: one encoder for all cameras, or one per camera.
    depth, width, pool, keypoints, features, norm, remat, kernels: see `resnet.ImageEncoder`.
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
    kernels: str = "auto"

    def setup(self):
        sizes = (self.depth, self.width, self.pool, self.keypoints, self.features)
        options = (self.norm, self.remat, self.kernels)
        count = 1 if self.shared else len(self.cameras)
        self.encoders = [ImageEncoder(*sizes, *options) for _ in range(count)]

    def _per_camera(
        self, obs: Mapping[str, Array], method: Callable[[ImageEncoder, Array], Array]
    ) -> Iterator[tuple[str, Array]]:
        """(camera, method(its encoder, its images) as [B, To, ...]), in the cameras' order."""
        for i, name in enumerate(self.cameras):
            x = obs[name]  # [B, To, H, W, 3]
            encoder = self.encoders[0 if self.shared else i]
            # Frames are examples of their own for the encoder.
            h = method(encoder, x.reshape(-1, *x.shape[2:]))
            yield name, h.reshape(*x.shape[:2], *h.shape[1:])

    def points(self, obs: Mapping[str, Array]) -> dict[str, Array]:
        """{camera: [B, To, keypoints, 2]}: where its maps are active, (x, y) in [-1, 1]."""
        return dict(self._per_camera(obs, lambda encoder, x: encoder.points(x)))

    def __call__(self, obs: Mapping[str, Array], keys: PRNGKey | None = None) -> Array:
        """obs {key: [B, To, D], camera: [B, To, H, W, 3]} -> [B, To, ΣD + cameras features]."""
        del keys  # what is random happens before (`augment.view_observation`)
        features = dict(self._per_camera(obs, lambda encoder, x: encoder(x)))
        if not self.trained:
            features = jax.lax.stop_gradient(features)
        return jnp.concatenate([*(obs[key] for key in self.keys), *features.values()], axis=-1)
