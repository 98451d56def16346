"""config.cameras: what each camera must deliver, and how the network sees it."""

from collections.abc import Callable
import functools
import os

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
from dpjax.nets.augment import View
from dpjax.nets.encoders import Cameras, Concat

KEYS = ("size", "resize", "crop")  # of each camera


def check_config(config: ConfigDict) -> None:
    """Refuses cameras whose sizes don't fit together, and encoders that don't exist."""
    check_sizes(config)
    check_encoder(config.encoder)
    if config.cameras and config.condition == "inpaint":
        raise UserError(
            "config.condition='inpaint' denoises the observations too, which images can't be: "
            "use 'features'."
        )


def check_sizes(config: ConfigDict) -> None:
    """Refuses a camera with other keys, or a crop that its image does not hold."""
    for name, camera in config.cameras.items():
        where = f"config.cameras.{name}"
        for key in camera:
            if key not in KEYS:
                raise UserError(f"{where}.{key} is unknown; {choices(key, KEYS)}.")
        for key in KEYS:
            if len(camera.get(key, ())) not in ((2,) if key == "size" else (0, 2)):
                raise UserError(
                    f"{where}.{key}={camera.get(key, ())!r} must be (height, width) in px"
                    f"{'' if key == 'size' else ', or () for none'}."
                )
        full = tuple(camera.get("resize", ())) or tuple(camera["size"])
        part = camera.get("crop", ())
        if any(inner > outer for inner, outer in zip(part, full)):
            raise UserError(
                f"{where}.crop={tuple(part)} is larger than the image it is cut from, "
                f"{full}: lower it, or raise {where}.resize."
            )


def check_encoder(encoder: ConfigDict) -> None:
    """Refuses a ResNet that does not exist, and weights that are of another one."""
    lists = {"pool": resnet.POOLS, "depth": resnet.BLOCKS, "norm": resnet.NORMS}
    for key, known in lists.items():
        if encoder[key] not in known:
            raise UserError(
                f"config.encoder.{key}={encoder[key]!r} is unknown; "
                f"choose one of {', '.join(map(str, known))}."
            )
    if encoder.width % resnet.CHANNELS_A_GROUP:
        raise UserError(
            f"config.encoder.width={encoder.width} must be a multiple of "
            f"{resnet.CHANNELS_A_GROUP}, the channels of a GroupNorm's group."
        )
    if encoder.weights and (encoder.norm, encoder.width) != ("frozen", 64):
        raise UserError(
            f"config.encoder.weights={encoder.weights!r} are of a ResNet of width 64 with "
            f"BatchNorm: set config.encoder.width=64 (is {encoder.width}) and "
            f"config.encoder.norm=frozen (is {encoder.norm})."
        )


def check_columns(config: ConfigDict, raw: Episodes) -> None:
    """Refuses data in which a camera's images are missing, of another size, or no images."""
    for name, camera in config.cameras.items():
        if name not in raw.columns:
            raise UserError(
                f"{raw.source}: config.cameras.{name}: no such column; "
                f"{choices(name, config.data.columns)} (config.data.columns)."
            )
        column = raw.columns[name]
        check_image(f"{raw.source}: {name}", column.shape[1:], column.dtype, camera["size"])


def check_image(where: str, shape, dtype, size) -> None:
    """Refuses an image of another shape or type than uint8 [*size, 3]."""
    why = checks.image_problem(tuple(shape), dtype)
    if not why and tuple(shape[:2]) != tuple(size):
        why = f"expected images of {tuple(size)} px, got {tuple(shape[:2])}"
    if why:
        raise UserError(f"{where}: {why}.")


def rows(spec: Spec, observed: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Of every observation the shape and dtype of a row: [To, D], or uint8 [To, H, W, 3]."""
    row = lambda dtype, *size: jax.ShapeDtypeStruct((observed, *size), dtype)
    numbers = {key: row(np.float32, size) for key, size in spec.numbers.items()}
    images = {key: row(np.uint8, *size) for key, size in spec.cameras.items()}
    return {**numbers, **images}


def memory(config: ConfigDict) -> int:
    """Bytes that decoded images may take; half of the machine's where the config says 0."""
    if config.data.memory:
        return int(config.data.memory * 2**30)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def views(config: ConfigDict) -> dict[str, View]:
    """How each camera is seen."""
    colors = dict(config.augment)
    return {
        name: View(tuple(camera.get("resize", ())), tuple(camera.get("crop", ())), **colors)
        for name, camera in config.cameras.items()
    }


def view(config: ConfigDict) -> Callable:
    """`(obs, keys) -> obs` with every camera's images as the network sees them."""
    return functools.partial(augment.see, views(config))


def encoder(config: ConfigDict, spec: Spec):
    """The flax module from normalized observations to features [B, To, F]."""
    if not spec.cameras:
        return Concat(tuple(spec.observations))
    own = {key: x for key, x in config.encoder.items() if key not in ("weights", "lr")}
    own.update(trained=config.encoder.lr > 0, remat=config.compute.remat)
    return Cameras(tuple(spec.numbers), tuple(spec.cameras), **own)


def pretrained(config: ConfigDict) -> Params | None:
    """The ResNet's params out of config.encoder.weights, or None."""
    if not (config.cameras and config.encoder.weights):
        return None
    return torchvision.resnet(config.encoder.weights, config.encoder.depth)


def begin_with(params: Params, backbone: Params | None) -> Params:
    """params with that ResNet in every camera's encoder."""
    if backbone is None:
        return params
    put = lambda encoder: {**encoder, "backbone": backbone}
    encoders = {key: put(encoder) for key, encoder in params["encoder"].items()}
    return {**params, "encoder": encoders}


def look(config: ConfigDict, spec: Spec, params: Params, obs) -> tuple[dict, dict]:
    """({camera: uint8 [B, h, w, 3]}, {camera: [B, keypoints, 2]}) of the newest frames.

    obs: in the units of the data, rotations as the network sees them (`spaces.encode_obs`).

    The crops as the network sees them when it acts, and where its spatial softmax looks,
    (x, y) in [-1, 1]; no points where the pooling is another.
    """
    module = encoder(config, spec)
    newest = view(config)({key: x[:, -1:] for key, x in obs.items()})
    crops = {key: jnp.round(newest[key][:, 0]).astype(jnp.uint8) for key in spec.cameras}
    if config.encoder.pool != "spatial_softmax":
        return crops, {key: jnp.zeros((len(x), 0, 2)) for key, x in crops.items()}
    seen = params["normalizer"].normalize(newest)
    points = module.apply({"params": params["encoder"]}, seen, method="points")
    return crops, {key: x[:, 0] for key, x in points.items()}
