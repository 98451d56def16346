"""The keys of config.cameras and config.encoder: their checks, and what is built from them."""

from collections.abc import Callable, Mapping
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from dpjax.core.errors import UserError, choices
from dpjax.core.spec import Spec
from dpjax.core.types import Params
from dpjax.data import checks
from dpjax.data.episodes import Episodes
from dpjax.interop import torchvision
from dpjax.nets import augment, resnet
from dpjax.nets.augment import CameraView
from dpjax.nets.encoders import Cameras, Concat

# The keys of each camera, all (height, width) in px: the recorded image, the image after resizing,
# and the crop that the network sees.
KEYS = ("size", "resize", "crop")


def check(cameras: ConfigDict, condition: str) -> None:
    """Raises UserError for unknown keys of a camera, wrong sizes, or cameras with inpainting."""
    for name, camera in cameras.items():
        where = f"config.cameras.{name}"
        for key in camera:
            if key not in KEYS:
                raise UserError(f"{where}.{key} is unknown; {choices(key, KEYS)}.")
        # Each value is a pair. Only `size` is required; () leaves the others out.
        for key in KEYS:
            size = camera.get(key, ())
            if len(size) not in ((2,) if key == "size" else (0, 2)):
                raise UserError(
                    f"{where}.{key}={size!r} must be (height, width) in px"
                    f"{'' if key == 'size' else ', or () for none'}."
                )
        # The crop is cut from the image after resizing.
        full = tuple(camera.get("resize", ())) or tuple(camera["size"])
        crop = tuple(camera.get("crop", ()))
        if any(inner > outer for inner, outer in zip(crop, full)):
            raise UserError(
                f"{where}.crop={crop} is larger than the image it is cut from, "
                f"{full}: lower it, or raise {where}.resize."
            )
    # Inpainting adds the observations to the array [B, Tp, Da] that is denoised.
    if cameras and condition == "inpaint":
        raise UserError(
            "config.condition='inpaint' denoises the observations too, which images can't be: "
            "use 'features'."
        )


def check_encoder(encoder: ConfigDict) -> None:
    """Raises UserError for a width that GroupNorm cannot split, or weights that do not fit."""
    if encoder.width % resnet.CHANNELS_PER_GROUP:
        raise UserError(
            f"config.encoder.width={encoder.width} must be a multiple of "
            f"{resnet.CHANNELS_PER_GROUP}, the channels of a GroupNorm's group."
        )
    # Pretrained weights are torchvision's, whose ResNets have width 64 and BatchNorm.
    if encoder.weights and (encoder.norm, encoder.width) != ("frozen", 64):
        raise UserError(
            f"config.encoder.weights={encoder.weights!r} are of a ResNet of width 64 with "
            f"BatchNorm: set config.encoder.width=64 (is {encoder.width}) and "
            f"config.encoder.norm=frozen (is {encoder.norm})."
        )


def check_columns(cameras: Mapping[str, Any], raw: Episodes) -> None:
    """Raises UserError if a camera has no column, or if its column holds no images of its size."""
    for name, camera in cameras.items():
        if name not in raw.columns:
            raise UserError(
                f"{raw.source}: config.cameras.{name}: no such column; "
                f"{choices(name, raw.columns)} (config.data.columns)."
            )
        # The column of a camera is [N, H, W, 3].
        column = raw.columns[name]
        check_image(f"{raw.source}: {name}", column.shape[1:], column.dtype, camera["size"])


def check_image(where: str, shape: tuple[int, ...], dtype: Any, size: tuple[int, int]) -> None:
    """Raises UserError unless the shape and dtype are those of a uint8 image [*size, 3]."""
    # Whether it is an image at all comes before the size: the message is clearer.
    why = checks.image_problem(tuple(shape), dtype)  # "" if it is one
    if not why and tuple(shape[:2]) != tuple(size):
        why = f"expected images of {tuple(size)} px, got {tuple(shape[:2])}"
    if why:
        raise UserError(f"{where}: {why}.")


def observation_shapes(spec: Spec, observed: int) -> dict[str, jax.ShapeDtypeStruct]:
    """{observation: shape and dtype of one example}: float32 [To, D] or uint8 [To, H, W, 3].

    observed: To, the number of observed steps.
    """
    # ShapeDtypeStruct describes an array to JAX without allocating it.
    numbers = {
        key: jax.ShapeDtypeStruct((observed, size), np.float32)
        for key, size in spec.numbers.items()
    }
    images = {
        key: jax.ShapeDtypeStruct((observed, *size), np.uint8) for key, size in spec.cameras.items()
    }
    return {**numbers, **images}


def image_memory(gibibytes: float) -> int:
    """How many bytes of memory decoded images may take.

    gibibytes: config.data.memory; 0 for half of the machine's memory.
    """
    if gibibytes:
        return int(gibibytes * 2**30)
    # Bytes per page times the number of pages.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def views(cameras: Mapping[str, Any], colors: Mapping[str, Any]) -> dict[str, CameraView]:
    """{camera: how its images are resized, cropped and augmented}.

    colors: the section config.augment.
    """
    # An absent or empty size, (), leaves that step out.
    return {
        name: CameraView(tuple(camera.get("resize", ())), tuple(camera.get("crop", ())), **colors)
        for name, camera in cameras.items()
    }


def view(cameras: Mapping[str, Any], colors: Mapping[str, Any]) -> Callable:
    """A function `(obs, keys) -> obs` that turns recorded images into what the network sees.

    keys: random keys of the augmentation in training. Without them the crop is central.
    """
    return functools.partial(augment.view_observation, views(cameras, colors))


def encoder(section: ConfigDict, compute: ConfigDict, spec: Spec) -> Any:
    """The flax module that maps normalized observations to features [B, To, F].

    section: config.encoder. compute: config.compute.
    """
    # Without cameras the features are the numbers of all observations, side by side.
    if not spec.cameras:
        return Concat(tuple(spec.observations))
    # All keys are fields of the module, but for `weights` and `lr`: these two are for the
    # initialization and for the optimizer.
    fields = {name: x for name, x in section.items() if name not in ("weights", "lr")}
    fields.update(
        trained=section.lr > 0,
        remat=compute.remat,
        kernels=compute.kernels,
    )
    return Cameras(tuple(spec.numbers), tuple(spec.cameras), **fields)


def pretrained(encoder: ConfigDict) -> Params | None:
    """The params of the pretrained ResNet that config.encoder.weights names; None if empty."""
    return torchvision.resnet(encoder.weights, encoder.depth) if encoder.weights else None


def with_backbone(params: Params, backbone: Params | None) -> Params:
    """A copy of the params in which every camera's encoder has the pretrained backbone.

    backbone: what `pretrained` returned; None leaves the params as they are.
    """
    if backbone is None:
        return params
    # Only the backbone is replaced: what follows it in an encoder keeps its random start.
    encoders = {
        name: {**encoder, "backbone": backbone} for name, encoder in params["encoder"].items()
    }
    return {**params, "encoder": encoders}


def what_it_sees(
    config: ConfigDict, spec: Spec, params: Params, obs: Mapping[str, Any]
) -> tuple[dict, dict]:
    """What the network sees of the newest frames: (images, points).

    images: {camera: uint8 [B, h, w, 3]}, resized and cropped as in sampling.
    points: {camera: [B, keypoints, 2]}, where its spatial softmax looks, as (x, y) in [-1, 1]. With
        another pooling there are none, [B, 0, 2].
    obs: observations in the units of the data, with rotations in the learned representation.
    """
    # The newest of To steps, resized and cropped. Without keys the crop is central.
    module = encoder(config.encoder, config.compute, spec)
    newest = {key: x[:, -1:] for key, x in obs.items()}  # [B, 1, …]
    newest = view(config.cameras, config.augment)(newest)
    # Pixel values from 0 to 255, as a picture needs them. The network gets normalized ones.
    crops = {key: jnp.round(newest[key][:, 0]).astype(jnp.uint8) for key in spec.cameras}
    if config.encoder.pool != "spatial_softmax":
        return crops, {key: jnp.zeros((len(x), 0, 2)) for key, x in crops.items()}
    # A point is the mean position under the softmax of one feature map, [B, 1, keypoints, 2].
    normalized = params["normalizer"].normalize(newest)
    points = module.apply({"params": params["encoder"]}, normalized, method="points")
    return crops, {key: x[:, 0] for key, x in points.items()}
