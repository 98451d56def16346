"""Reads image policies of Chi et al.'s code: the settings and units of their cameras.

Their encoders are read by `encoders`. Our features are the numbers first, then the cameras;
`feature_order` reorders the columns of whatever reads them.
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
    """A policy that observes cameras, and numbers with a normalizer key each."""
    # What it observes: shape_meta has a type and a shape per key, numbers by default.
    meta = get(cfg, "shape_meta.obs", get(cfg, "policy.shape_meta.obs", {}))
    action = get(cfg, "shape_meta.action.shape", get(cfg, "policy.shape_meta.action.shape"))
    if not meta or not isinstance(action, list) or len(action) != 1:
        raise refuse(source, "cfg.shape_meta", "obs and the action's shape", meta or "nothing")
    cameras = {key: x["shape"] for key, x in meta.items() if get(x, "type", "low_dim") == "rgb"}
    numbers = {key: x["shape"][0] for key, x in meta.items() if key not in cameras}
    # Names, sizes and encoders, bounded before any array is allocated.
    our_names = renamed(source, numbers, observations)
    multi = any(name.startswith(encoders.MULTI_PREFIX) for name in tensors)
    settings = {**settings, **camera_settings(source, cfg, cameras, tensors, multi)}
    check_sizes(source, settings)

    # The columns of the denoiser that read the features, and the units of everything observed.
    keys = (*sorted(cameras), *sorted(numbers)) if multi else tuple(meta)  # in their order
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
    """Index of each of our features among theirs, whose keys are given in their order."""
    size = settings["encoder"]["features"]
    sizes = {key: size if key in cameras else numbers[key] for key in keys}
    # A U-Net reads all observed steps as one vector, a transformer one step per token.
    steps = settings["horizon"]["obs"] if settings["denoiser"]["name"] == "unet1d" else 1
    return feature_order(sizes, [*numbers, *cameras], steps)


def renamed(
    source: str, numbers: Mapping[str, int], observations: Mapping[str, int] | None
) -> dict[str, str]:
    """{their key: ours} of the numbers; observations: {ours: size}, in the order of theirs."""
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
    # What dpjax does not do to an image is refused.
    for key, shape in cameras.items():
        if not isinstance(shape, list) or len(shape) != 3 or shape[0] != 3:
            raise refuse(source, f"cfg.shape_meta.obs.{key}.shape", "[3, height, width]", shape)
    if get(section, "resize_shape") is not None:
        choose(source, f"{where}.resize_shape", str(section["resize_shape"]), {None: None})
    if not multi and get(section, "crop_shape"):
        fixed = get(section, "eval_fixed_crop", False)
        choose(source, f"{where}.eval_fixed_crop", fixed, {True: 0})
    # Sizes that no config has come from the tensors.
    width = stem_width(tensors)
    encoder = {
        "depth": resnet_depth(tensors),
        "width": width,
        "pool": "average" if multi else "spatial_softmax",
        "features": 8 * width if multi else 64,
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
    # The stage is called layer3, or 6 where torch numbers the children of the ResNet.
    blocks = {
        name.split(stage)[-1].split(".")[0]
        for stage in (".layer3.", ".nets.6.")
        for name in tensors
        if stage in name
    }
    return 34 if len(blocks) > 2 else 18


def stem_width(tensors: Mapping[str, np.ndarray]) -> int:
    """Channels of the ResNet's first convolution."""
    stems = ("nets.0.weight", ".conv1.weight")
    return next((x.shape[0] for name, x in tensors.items() if name.endswith(stems)), 64)


def crop_of(source: str, section: Mapping, key: str, where: str, multi: bool) -> tuple[int, ...]:
    """The crop (height, width) that a camera's network sees, () for the full image."""
    crop = get(section, "crop_shape")
    # One crop for all cameras, or one per camera.
    crop = crop.get(key) if isinstance(crop, dict) else crop
    # Without random_crop the "multi" encoder crops nothing.
    if crop is None or (multi and not get(section, "random_crop", True)):
        return ()
    if not isinstance(crop, list) or len(crop) != 2:
        raise refuse(source, f"{where}.crop_shape", "[height, width]", crop)
    return tuple(crop)


def units_of(
    source: str, cfg: Mapping, normalizer: Tensors, numbers: Mapping, cameras: Mapping
) -> Units:
    """{key: (offset, scale)} of everything observed, and of the action."""
    # Numbers and the action.
    unit_of = functools.partial(normalization.from_chi2023, source, normalizer)
    units = {key: unit_of(key) for key in (*numbers, "action")}
    for key, size in numbers.items():
        if len(units[key][1]) != size:
            raise refuse(source, f"cfg.shape_meta.obs.{key}", len(units[key][1]), size)
    # Cameras: one number for all channels, or one per channel.
    for key in cameras:
        offset, scale = unit_of(key, normalization.PIXEL_MAX)
        if len(scale) not in (1, 3):
            raise refuse(source, f"normalizer.params_dict.{key}", "1 or 3 numbers", len(scale))
        offset = np.broadcast_to(offset, 3)
        scale = np.broadcast_to(scale, 3)
        if get(cfg, "policy.obs_encoder.imagenet_norm", False):
            # Their encoder applies ImageNet's units, of [0, 1], to values in [-1, 1].
            mean, std = (np.array(x) / normalization.PIXEL_MAX for x in IMAGE_MODES["imagenet"])
            offset = np.float32(offset + scale * mean)
            scale = np.float32(scale * std)
        units[key] = (np.array(offset), np.array(scale))
    return units


def warn(cfg: Mapping, settings: Settings, multi: bool) -> None:
    """Logs in what the encoders differ from those of the checkpoint."""
    if settings["encoder"]["norm"] == "frozen":
        log.warning("BatchNorms are folded with their statistics: fine-tuning leaves them fixed")
    if not multi:
        return
    log.warning("the encoders' last layer is the identity, until it is trained")
    section = get(cfg, "policy.obs_encoder", {})
    if get(section, "crop_shape") and not get(section, "random_crop", True):
        log.warning("no crop: with random_crop=False their encoder ignores crop_shape")
