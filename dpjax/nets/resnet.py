"""The paper's image encoder: a ResNet whose features are points in the image.

ResNet-18 or -34 (He et al. 2016) with GroupNorm in place of BatchNorm (Wu & He 2018; an EMA of
the weights does not go with running statistics), and spatial softmax (Levine et al. 2016) in
place of average pooling: for each map h_k of the last activations,

    p_k = softmax over (i, j) of h_k,    point_k = Σ p_k(i, j) (x_j, y_i)   in [-1, 1]²  (1)

is where in the image the map is active, and that is what a robot's hand needs to know.
"""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core.types import PRNGKey
from dpjax.nets.layers import Dense, FrozenNorm, GroupNorm, apply_block, torch_uniform
from dpjax.ops.conv2d import conv2d, max_pool

Array = jax.Array

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # {depth: blocks per stage}
POOLS = ("spatial_softmax", "average")
NORMS = ("group", "frozen")
CHANNELS_PER_GROUP = 16  # of the GroupNorms (Chi et al. 2023, code)


def make_norm(norm: str, features: int, *, kernels: str = "auto", name: str) -> nn.Module:
    """The layer that `norm` names, one of NORMS."""
    if norm == "frozen":
        return FrozenNorm(name=name)
    return GroupNorm(features // CHANNELS_PER_GROUP, kernels, name=name)


class Conv(nn.Module):
    """2-D convolution without bias, in torch's geometry: the same padding on all sides."""

    features: int
    size: int
    stride: int = 1
    kernels: str = "auto"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        kernel = self.param("kernel", init, shape)
        padding = self.size // 2
        return conv2d(x, kernel, stride=self.stride, padding=padding, kernels=self.kernels)


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut."""

    features: int
    stride: int
    norm: str
    kernels: str = "auto"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = functools.partial(Conv, self.features, kernels=self.kernels)
        norm = functools.partial(make_norm, self.norm, self.features, kernels=self.kernels)
        # Two convolutions; the first one halves the image at stride 2.
        h = conv(3, self.stride, name="conv0")(x)
        h = nn.relu(norm(name="norm0")(h))
        h = conv(3, name="conv1")(h)
        h = norm(name="norm1")(h)
        # The shortcut follows where the shape changes.
        if self.stride > 1 or x.shape[-1] != self.features:
            x = conv(1, self.stride, name="shortcut")(x)
            x = norm(name="shortcut_norm")(x)
        return nn.relu(h + x)


class ResNet(nn.Module):
    """[B, H, W, C] -> [B, ⌈H/32⌉, ⌈W/32⌉, 8 width].

    depth: 18 or 34. width: channels of the first stage (64 in the paper).
    norm: "group", or "frozen" for the BatchNorms of weights that were trained elsewhere.
    remat: blocks are computed again in the backward pass.
    kernels: "auto" or "xla", see `ops/kernels.py`.
    """

    depth: int = 18
    width: int = 64
    norm: str = "group"
    remat: bool = False
    kernels: str = "auto"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        # The stem: a quarter of the height and width.
        x = Conv(self.width, 7, 2, self.kernels, name="conv")(x)
        x = make_norm(self.norm, self.width, kernels=self.kernels, name="norm")(x)
        x = max_pool(nn.relu(x), kernels=self.kernels)
        # Four stages, each of twice the channels.
        for stage, blocks in enumerate(BLOCKS[self.depth]):
            features = self.width * 2**stage
            for i in range(blocks):
                # The first block of every stage but the first halves the image.
                stride = 2 if stage and not i else 1
                name = f"stage{stage}_{i}"
                block = BasicBlock(features, stride, self.norm, self.kernels, name=name)
                x = apply_block(block, x, remat=self.remat)
        return x


def spatial_softmax(maps: Array) -> Array:
    """Equation (1): [B, H, W, K] -> points [B, K, 2] as (x, y) in [-1, 1], in float32."""
    batch, height, width, num = maps.shape
    # The softmax is over all pixels of a map.
    p = jax.nn.softmax(maps.astype(jnp.float32).reshape(batch, height * width, num), axis=1)
    p = p.reshape(batch, height, width, num)
    # The mean position under p; pixels are spread evenly over [-1, 1].
    x = jnp.einsum("bhwk,w->bk", p, np.linspace(-1, 1, width, dtype=np.float32))
    y = jnp.einsum("bhwk,h->bk", p, np.linspace(-1, 1, height, dtype=np.float32))
    return jnp.stack([x, y], axis=-1)


class ImageEncoder(nn.Module):
    """One camera: [B, H, W, 3] in network units -> [B, features].

    depth, width, norm, remat, kernels: those of the ResNet.
    pool: "spatial_softmax" of `keypoints` maps, or "average".
    """

    depth: int = 18
    width: int = 64
    pool: str = "spatial_softmax"
    keypoints: int = 32
    features: int = 64
    norm: str = "group"
    remat: bool = False
    kernels: str = "auto"

    def setup(self):
        self.backbone = ResNet(self.depth, self.width, self.norm, self.remat, self.kernels)
        if self.pool == "spatial_softmax":
            # One map per keypoint, a 1 × 1 convolution of the last activations.
            self.maps = nn.Conv(self.keypoints, (1, 1), kernel_init=_uniform)
        self.out = Dense(self.features, kernels=self.kernels)

    def points(self, x: Array) -> Array:
        """[B, H, W, 3] -> where the maps are active, [B, keypoints, 2] as (x, y) in [-1, 1]."""
        return spatial_softmax(self.maps(self.backbone(x)))

    def __call__(self, x: Array) -> Array:
        if self.pool == "spatial_softmax":
            h = self.points(x).astype(x.dtype)
        else:
            h = self.backbone(x).mean((1, 2))
        return nn.relu(self.out(h.reshape(h.shape[0], -1)))


def _uniform(rng: PRNGKey, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """`torch_uniform` of a 1 × 1 convolution, as an initializer of flax."""
    del dtype
    return torch_uniform(rng, shape, shape[-2])
