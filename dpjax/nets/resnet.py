"""The paper's image encoder: a ResNet whose features are points in the image.

ResNet-18 or -34 (He et al. 2016) with GroupNorm in place of BatchNorm (Wu & He 2018; an
EMA of the weights does not go with running statistics), and spatial softmax (Levine et
al. 2016) in place of average pooling: of each map k of the last activations,

    p_k = softmax over (i, j) of h_k,    point_k = Σ p_k(i, j) (x_j, y_i)   in [-1, 1]²  (1)

is where in the image the map looks, which is what a robot's hand wants to know.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dpjax.nets.layers import Dense, FrozenNorm, GroupNorm, rerun, torch_uniform
from dpjax.ops.conv2d import conv2d, max_pool

Array = jax.Array

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
POOLS = ("spatial_softmax", "average")
NORMS = ("group", "frozen")
CHANNELS_A_GROUP = 16  # of the GroupNorms (Chi et al. 2023, code)


def norm(kind: str, features: int, name: str) -> nn.Module:
    """The norm of `kind`, one of NORMS."""
    if kind == "frozen":
        return FrozenNorm(name=name)
    return GroupNorm(features // CHANNELS_A_GROUP, name=name)


class Conv(nn.Module):
    """Without bias, in torch's geometry: the same padding on all sides."""

    features: int
    size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        kernel = self.param("kernel", init, shape)
        return conv2d(x, kernel, stride=self.stride, padding=self.size // 2)


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut."""

    features: int
    stride: int
    norm: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = Conv(self.features, 3, self.stride, name="conv0")(x)
        h = nn.relu(norm(self.norm, self.features, "norm0")(h))
        h = norm(self.norm, self.features, "norm1")(Conv(self.features, 3, name="conv1")(h))
        if self.stride > 1 or x.shape[-1] != self.features:
            x = Conv(self.features, 1, self.stride, name="shortcut")(x)
            x = norm(self.norm, self.features, "shortcut_norm")(x)
        return nn.relu(h + x)


class ResNet(nn.Module):
    """[B, H, W, C] -> [B, ⌈H/32⌉, ⌈W/32⌉, 8 width].

    depth: 18 or 34. width: channels of the first stage (64 in the paper). norm: "group",
    or "frozen" for the BatchNorms of somebody's trained weights.
    remat: blocks are computed again in the backward pass.
    """

    depth: int = 18
    width: int = 64
    norm: str = "group"
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.relu(norm(self.norm, self.width, "norm")(Conv(self.width, 7, 2, name="conv")(x)))
        x = max_pool(x)
        for stage, blocks in enumerate(BLOCKS[self.depth]):
            for i in range(blocks):
                stride = 2 if stage and not i else 1
                features, name = self.width * 2**stage, f"stage{stage}_{i}"
                x = rerun(self.remat, BasicBlock(features, stride, self.norm, name=name), x)
        return x


def spatial_softmax(maps: Array) -> Array:
    """Equation (1): [B, H, W, K] -> points [B, K, 2] as (x, y) in [-1, 1], in float32."""
    batch, height, width, num = maps.shape
    p = jax.nn.softmax(maps.astype(jnp.float32).reshape(batch, height * width, num), axis=1)
    p = p.reshape(batch, height, width, num)
    x = jnp.einsum("bhwk,w->bk", p, np.linspace(-1, 1, width, dtype=np.float32))
    y = jnp.einsum("bhwk,h->bk", p, np.linspace(-1, 1, height, dtype=np.float32))
    return jnp.stack([x, y], axis=-1)


class ImageEncoder(nn.Module):
    """One camera: [B, H, W, 3] in network units -> [B, features].

    depth, width, norm, remat: of the ResNet. pool: "spatial_softmax" of `keypoints` maps, or
    "average".
    """

    depth: int = 18
    width: int = 64
    pool: str = "spatial_softmax"
    keypoints: int = 32
    features: int = 64
    norm: str = "group"
    remat: bool = False

    def setup(self):
        self.backbone = ResNet(self.depth, self.width, self.norm, self.remat)
        if self.pool == "spatial_softmax":
            uniform = lambda rng, shape, _: torch_uniform(rng, shape, shape[-2])
            self.maps = nn.Conv(self.keypoints, (1, 1), kernel_init=uniform)
        self.out = Dense(self.features)

    def points(self, x: Array) -> Array:
        """[B, H, W, 3] -> where the maps look, [B, keypoints, 2] as (x, y) in [-1, 1]."""
        return spatial_softmax(self.maps(self.backbone(x)))

    def __call__(self, x: Array) -> Array:
        if self.pool == "spatial_softmax":
            h = self.points(x).astype(x.dtype)
        else:
            h = self.backbone(x).mean((1, 2))
        return nn.relu(self.out(h.reshape(h.shape[0], -1)))
