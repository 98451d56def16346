"""Reads image policies of Chi et al.'s code: their settings and normalization.

`encoders` reads the weights of the image encoders. The features of a step are the numbers
first, then the cameras in dpjax, and in another order in Chi et al.'s code; `feature_order`
gives the indices that reorder the columns of the layers that read the features.
"""

from collections.abc import Iterable, Mapping
import functools
import logging
from typing import Any

import numpy as np

from dpjax.core.errors import UserError
from dpjax.core.normalizer import IMAGE_MODES
from dpjax.interop import networks, normalization, resnets
from dpjax.interop.chi2023 import encoders
from dpjax.interop.chi2023.config import get
from dpjax.interop.imported import (
    ImportedPolicy,
    Settings,
    Units,
    check_sizes,
    choose,
    feature_order,
    refuse,
)
from dpjax.interop.weight_map import Tensors

log = logging.getLogger("dpjax")


def image_policy(
    source: str,
    cfg: Mapping,
    settings: Settings,
    tensors: Tensors,
    normalizer: Tensors,
    observations: Mapping[str, int] | None,
) -> ImportedPolicy:
    """A policy that observes cameras, and numbers under one normalizer key per observation."""
    # What the policy observes: shape_meta has a shape per key, and a type, numbers by default.
    meta = get(cfg, "shape_meta.obs", get(cfg, "policy.shape_meta.obs", {}))
    action = get(cfg, "shape_meta.action.shape", get(cfg, "policy.shape_meta.action.shape"))
    if not meta or not isinstance(action, list) or len(action) != 1:
        raise refuse(source, "cfg.shape_meta", "obs and the action's shape", meta or "nothing")
    cameras = {key: x["shape"] for key, x in meta.items() if get(x, "type", "low_dim") == "rgb"}
    numbers = {key: x["shape"][0] for key, x in meta.items() if key not in cameras}
    # Names, settings and sizes, checked before any array is allocated.
    our_names = renamed(source, numbers, observations)
    multi = any(name.startswith(encoders.MULTI_PREFIX) for name in tensors)
    settings = {**settings, **camera_settings(source, cfg, cameras, tensors, multi)}
    check_sizes(source, settings)

    # The order of the features and the normalization. The multi-image encoder sorts its keys by
    # name; robomimic's has them in the order of shape_meta.
    keys = (*sorted(cameras), *sorted(numbers)) if multi else tuple(meta)
    order = order_of(keys, numbers, cameras, settings)
    units = units_of(source, cfg, normalizer, numbers, cameras)
    normalization.check_keys(source, normalizer, (*meta, "action"))
    tensors, encoder = encoders.prepare(source, tensors, list(cameras), settings["encoder"])
    warn(cfg, settings, multi)
    return ImportedPolicy(
        source=source,
        settings=settings,
        observations={
            **{our_names[key]: size for key, size in numbers.items()},
            # [3, height, width] in torch, (height, width, 3) here.
            **{key: (*size, channels) for key, (channels, *size) in cameras.items()},
        },
        action_size=action[0],
        tensors=resnets.fold_batch_norms(tensors),
        encoder=encoder,
        denoiser=networks.chi2023_denoiser(settings["denoiser"]["name"], order),
        units={our_names.get(key, key): unit for key, unit in units.items()},
    )


def order_of(
    keys: Iterable[str], numbers: Mapping, cameras: Mapping, settings: Settings
) -> np.ndarray:
    """For each of our features, its index in their vector; `keys` are in their order."""
    size = settings["encoder"]["features"]  # of each camera
    sizes = {key: size if key in cameras else numbers[key] for key in keys}
    # A U-Net reads all observed steps as one vector, a transformer reads one step per token.
    steps = settings["horizon"]["obs"] if settings["denoiser"]["name"] == "unet1d" else 1
    return feature_order(sizes, [*numbers, *cameras], steps)


def renamed(
    source: str, numbers: Mapping[str, int], observations: Mapping[str, int] | None
) -> dict[str, str]:
    """{their key: our key} of the numbers.

    observations: the user's {our key: size}, in the order of their keys; None keeps the keys.
    """
    # A name cannot be checked, but its size can.
    if observations and list(observations.values()) != list(numbers.values()):
        text = lambda sizes: ",".join(f"{key}={size}" for key, size in sizes.items())
        raise UserError(
            f"observations={text(observations)}: expected a name for each of {text(numbers)}, "
            f"which {source} observes.",
            argument="observations",
        )
    return dict(zip(numbers, observations or numbers))


def camera_settings(
    source: str, cfg: Mapping, cameras: Mapping, tensors: Tensors, multi: bool
) -> Settings:
    """The groups "encoder" and "cameras" of the settings."""
    where = "cfg.policy.obs_encoder" if multi else "cfg.policy"
    section = get(cfg, where.removeprefix("cfg."), {})
    # Whatever Chi et al.'s code does to an image and dpjax does not raises an error.
    for key, shape in cameras.items():
        if not isinstance(shape, list) or len(shape) != 3 or shape[0] != 3:
            raise refuse(source, f"cfg.shape_meta.obs.{key}.shape", "[3, height, width]", shape)
    # Only None is allowed for resize_shape, so `choose` raises the error.
    if get(section, "resize_shape") is not None:
        choose(source, f"{where}.resize_shape", str(section["resize_shape"]), {None: None})
    if not multi and get(section, "crop_shape"):
        # dpjax evaluates with the center crop, which is what eval_fixed_crop=True means.
        fixed = get(section, "eval_fixed_crop", False)
        choose(source, f"{where}.eval_fixed_crop", fixed, {True: 0})
    # The config lacks some sizes, which come from the tensors or are the published ones.
    width = stem_width(tensors)
    encoder = {
        "depth": resnet_depth(tensors),
        "width": width,
        "pool": "average" if multi else "spatial_softmax",
        "features": 8 * width if multi else 64,  # channels of the last stage, or linear outputs
        "keypoints": 32,
        "shared": bool(multi and get(section, "share_rgb_model", False)),
        "norm": "frozen" if any("running_mean" in name for name in tensors) else "group",
    }
    views = {}
    for key, shape in cameras.items():
        crop = crop_of(source, section, key, where, multi)
        views[key] = {"size": tuple(shape[1:]), "resize": (), "crop": crop}
    return {"encoder": encoder, "cameras": views}


def resnet_depth(tensors: Mapping[str, Any]) -> int:
    """18 or 34, by the number of blocks in the ResNet's third stage (2 or 6)."""
    # The stage is called layer3, or 6 where torch numbers the ResNet's children. After the stage's
    # name comes the number of the block, as in layer3.5.conv1.weight.
    blocks = {
        name.split(stage)[-1].split(".")[0]
        for stage in (".layer3.", ".nets.6.")
        for name in tensors
        if stage in name
    }
    return 34 if len(blocks) > 2 else 18


def stem_width(tensors: Mapping[str, np.ndarray]) -> int:
    """Channels of the ResNet's first convolution."""
    # The first match is the stem, since torch saves a ResNet's layers in their order.
    stems = ("nets.0.weight", ".conv1.weight")
    return next((x.shape[0] for name, x in tensors.items() if name.endswith(stems)), 64)


def crop_of(source: str, section: Mapping, key: str, where: str, multi: bool) -> tuple[int, ...]:
    """The crop (height, width) of a camera, () if its encoder sees the full image."""
    crop = get(section, "crop_shape")
    # One crop for all cameras, or one per camera.
    crop = crop.get(key) if isinstance(crop, dict) else crop
    # Without random_crop the multi-image encoder ignores crop_shape.
    if crop is None or (multi and not get(section, "random_crop", True)):
        return ()
    if not isinstance(crop, list) or len(crop) != 2:
        raise refuse(source, f"{where}.crop_shape", "[height, width]", crop)
    return tuple(crop)


def units_of(
    source: str, cfg: Mapping, normalizer: Tensors, numbers: Mapping, cameras: Mapping
) -> Units:
    """{key: (offset, scale)} of everything observed, and of the action."""
    # Numbers and the action, whose sizes must agree with the config.
    unit_of = functools.partial(normalization.from_chi2023, source, normalizer)
    units = {key: unit_of(key) for key in (*numbers, "action")}
    for key, size in numbers.items():
        if len(units[key][1]) != size:
            raise refuse(source, f"cfg.shape_meta.obs.{key}", len(units[key][1]), size)
    # Cameras, with one number for all channels or one per channel.
    for key in cameras:
        offset, scale = unit_of(key, normalization.PIXEL_MAX)
        if len(scale) not in (1, 3):
            raise refuse(source, f"normalizer.params_dict.{key}", "1 or 3 numbers", len(scale))
        offset = np.broadcast_to(offset, 3)
        scale = np.broadcast_to(scale, 3)
        if get(cfg, "policy.obs_encoder.imagenet_norm", False):
            # Their encoder applies ImageNet's mean and std, meant for [0, 1], to values in
            # [-1, 1]. Both steps as one: x̂ = ((x - offset) / scale - mean) / std.
            mean, std = (np.array(x) / normalization.PIXEL_MAX for x in IMAGE_MODES["imagenet"])
            offset = np.float32(offset + scale * mean)
            scale = np.float32(scale * std)
        units[key] = (np.array(offset), np.array(scale))
    return units


def warn(cfg: Mapping, settings: Settings, multi: bool) -> None:
    """Logs how the imported encoders differ from those of the checkpoint."""
    if settings["encoder"]["norm"] == "frozen":
        log.warning("BatchNorms are folded with their statistics: fine-tuning leaves them fixed")
    if not multi:
        return
    log.warning("the encoders' last layer is the identity, until it is trained")
    section = get(cfg, "policy.obs_encoder", {})
    if get(section, "crop_shape") and not get(section, "random_crop", True):
        log.warning("no crop: with random_crop=False their encoder ignores crop_shape")
