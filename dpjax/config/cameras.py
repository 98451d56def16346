"""config.cameras: what each camera must deliver, and how the network sees it."""

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

KEYS = ("size", "resize", "crop")  # of each camera


def check(cameras: ConfigDict, condition: str) -> None:
    """Refuses a camera with other keys, or with a crop that its image does not hold."""
    for name, camera in cameras.items():
        where = f"config.cameras.{name}"
        for key in camera:
            if key not in KEYS:
                raise UserError(f"{where}.{key} is unknown; {choices(key, KEYS)}.")
        # Sizes are pairs; only `size` must be there.
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
    if cameras and condition == "inpaint":
        raise UserError(
            "config.condition='inpaint' denoises the observations too, which images can't be: "
            "use 'features'."
        )


def check_encoder(encoder: ConfigDict) -> None:
    """Refuses a width that its norms cannot split, and weights of another ResNet."""
    if encoder.width % resnet.CHANNELS_PER_GROUP:
        raise UserError(
            f"config.encoder.width={encoder.width} must be a multiple of "
            f"{resnet.CHANNELS_PER_GROUP}, the channels of a GroupNorm's group."
        )
    # torchvision's ResNets have these sizes, and BatchNorm.
    if encoder.weights and (encoder.norm, encoder.width) != ("frozen", 64):
        raise UserError(
            f"config.encoder.weights={encoder.weights!r} are of a ResNet of width 64 with "
            f"BatchNorm: set config.encoder.width=64 (is {encoder.width}) and "
            f"config.encoder.norm=frozen (is {encoder.norm})."
        )


def check_columns(cameras: Mapping[str, Any], raw: Episodes) -> None:
    """Refuses data in which a camera's images are missing, of another size, or no images."""
    for name, camera in cameras.items():
        if name not in raw.columns:
            raise UserError(
                f"{raw.source}: config.cameras.{name}: no such column; "
                f"{choices(name, raw.columns)} (config.data.columns)."
            )
        column = raw.columns[name]
        check_image(f"{raw.source}: {name}", column.shape[1:], column.dtype, camera["size"])


def check_image(where: str, shape: tuple[int, ...], dtype: Any, size: tuple[int, int]) -> None:
    """Refuses an image of another shape or type than uint8 [*size, 3]."""
    # First whether it is an image at all, then its size.
    why = checks.image_problem(tuple(shape), dtype)
    if not why and tuple(shape[:2]) != tuple(size):
        why = f"expected images of {tuple(size)} px, got {tuple(shape[:2])}"
    if why:
        raise UserError(f"{where}: {why}.")


def observation_shapes(spec: Spec, observed: int) -> dict[str, jax.ShapeDtypeStruct]:
    """{observation: shape and dtype of one example}: float32 [To, D] or uint8 [To, H, W, 3].

    observed: To.
    """
    numbers = {
        key: jax.ShapeDtypeStruct((observed, size), np.float32)
        for key, size in spec.numbers.items()
    }
    images = {
        key: jax.ShapeDtypeStruct((observed, *size), np.uint8) for key, size in spec.cameras.items()
    }
    return {**numbers, **images}


def image_memory(gibibytes: float) -> int:
    """Bytes that decoded images may take (config.data.memory); 0: half of the machine's."""
    if gibibytes:
        return int(gibibytes * 2**30)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def views(cameras: Mapping[str, Any], colors: Mapping[str, Any]) -> dict[str, CameraView]:
    """{camera: how the network sees it}. colors: the section config.augment."""
    return {
        name: CameraView(tuple(camera.get("resize", ())), tuple(camera.get("crop", ())), **colors)
        for name, camera in cameras.items()
    }


def view(cameras: Mapping[str, Any], colors: Mapping[str, Any]) -> Callable:
    """`(obs, keys) -> obs` with every camera's images as the network sees them."""
    return functools.partial(augment.view_observation, views(cameras, colors))


def encoder(section: ConfigDict, compute: ConfigDict, spec: Spec) -> Any:
    """The flax module from normalized observations to features [B, To, F].

    section: config.encoder. compute: config.compute.
    """
    if not spec.cameras:
        return Concat(tuple(spec.observations))
    # `weights` and `lr` are for the start and the optimizer, the others are fields of the module.
    fields = {name: x for name, x in section.items() if name not in ("weights", "lr")}
    fields.update(
        trained=section.lr > 0,
        remat=compute.remat,
        kernels=compute.kernels,
    )
    return Cameras(tuple(spec.numbers), tuple(spec.cameras), **fields)


def pretrained(encoder: ConfigDict) -> Params | None:
    """The ResNet's params out of config.encoder.weights; None where it names none."""
    return torchvision.resnet(encoder.weights, encoder.depth) if encoder.weights else None


def with_backbone(params: Params, backbone: Params | None) -> Params:
    """The params with that ResNet in every camera's encoder."""
    if backbone is None:
        return params
    encoders = {
        name: {**encoder, "backbone": backbone} for name, encoder in params["encoder"].items()
    }
    return {**params, "encoder": encoders}


def what_it_sees(
    config: ConfigDict, spec: Spec, params: Params, obs: Mapping[str, Any]
) -> tuple[dict, dict]:
    """({camera: uint8 [B, h, w, 3]}, {camera: [B, keypoints, 2]}) of the newest frames.

    The first are the crops as the network sees them when it acts. The second are the points where
    its spatial softmax looks, (x, y) in [-1, 1]; none, [B, 0, 2], where the pooling is another.
    obs: in the units of the data, rotations as the network sees them.
    """
    module = encoder(config.encoder, config.compute, spec)
    newest = {key: x[:, -1:] for key, x in obs.items()}
    newest = view(config.cameras, config.augment)(newest)
    # Pixels as a picture shows them, before they are normalized.
    crops = {key: jnp.round(newest[key][:, 0]).astype(jnp.uint8) for key in spec.cameras}
    if config.encoder.pool != "spatial_softmax":
        return crops, {key: jnp.zeros((len(x), 0, 2)) for key, x in crops.items()}
    # The points are the means of the spatial softmax, one per map.
    normalized = params["normalizer"].normalize(newest)
    points = module.apply({"params": params["encoder"]}, normalized, method="points")
    return crops, {key: x[:, 0] for key, x in points.items()}
