"""Our policies in LeRobot's layout: what `lerobot` reads, written.

Images are normalized by mean and deviation there, everything else by its limits, which are
chosen so that reading them again gives the same offset and scale in float32.
"""

from collections.abc import Mapping
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from dpjax.core.errors import UserError
from dpjax.interop import networks, normalization, weight_map
from dpjax.interop.imported import Observations, Units
from dpjax.interop.lerobot import reader
from dpjax.interop.lerobot import stats as stats_lib

FIXED = {  # config keys that LeRobot's policy has no choice in
    "denoiser.name": "unet1d",
    "condition": "features",
    "method": "diffusion",
    "sampler.diffusers": "current",
    "sampler.eta": 0.0,
    "sampler.warm_start": 0.0,
    "spaces.relative": "",
}
CAMERA_FIXED = {"encoder.pool": "spatial_softmax", "encoder.width": 64}
CHOICES = {
    "schedule.name": reader.SCHEDULES,
    "sampler.name": reader.SAMPLERS,
    "predict": reader.PREDICTS,
}
MODES = {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ENV": "MIN_MAX", "ACTION": "MIN_MAX"}
ONE = np.float32(1) - np.float32(networks.EPSILON)  # a variance that BatchNorm divides out as 1


def check(settings: Mapping[str, Any], observations: Observations, steps: np.ndarray) -> None:
    """Refuses what LeRobot's diffusion policy can't express, by the config's name for it.

    settings: {config key: value}. steps: the levels that the sampler visits.
    """
    cameras = [key for key, size in observations.items() if isinstance(size, tuple)]
    for key, value in {**FIXED, **(CAMERA_FIXED if cameras else {})}.items():
        if settings[key] != value:
            raise cannot(key, settings[key], repr(value))
    for key, table in CHOICES.items():
        if settings[key] not in table.values():
            raise cannot(key, settings[key], " or ".join(map(repr, table.values())))
    layouts = [key for key in settings if key.startswith("spaces.layouts.")]
    if layouts:
        raise cannot(layouts[0], settings[layouts[0]], "no rotations in 6-D")
    levels = settings["schedule.num_levels"]
    leading = np.arange(len(steps))[::-1] * (levels // len(steps))
    if not np.array_equal(steps, leading):
        raise cannot("sampler.spacing", settings["sampler.spacing"], "'leading', always")
    numbers = [key for key in observations if key not in cameras]
    if not numbers or len(numbers) + len(cameras) < 2:
        raise UserError(
            f"observations {', '.join(observations)}: LeRobot's diffusion policy observes a state, "
            "and a camera or an environment's state: expected two observations, one of numbers."
        )
    check_cameras(settings, {key: observations[key] for key in cameras})


def check_cameras(settings: Mapping[str, Any], sizes: Mapping[str, tuple]) -> None:
    """Refuses cameras of several sizes or crops, resizing, and another last layer."""
    seen = set()
    for key, size in sizes.items():
        part = lambda name, key=key: tuple(settings.get(f"cameras.{key}.{name}") or ())
        if part("resize"):
            raise cannot(f"cameras.{key}.resize", part("resize"), "(): it resizes otherwise")
        seen.add((tuple(size), part("crop")))
    if len(seen) > 1:
        raise cannot("cameras", sorted(seen), "cameras of one size and one crop")
    if sizes and settings["encoder.features"] != 2 * settings["encoder.keypoints"]:
        raise cannot("encoder.features", settings["encoder.features"], "2 encoder.keypoints")


def cannot(key: str, got: Any, expected: str) -> UserError:
    return UserError(
        f"config.{key}={got!r}: LeRobot's diffusion policy can't express that; expected {expected}."
    )


def features_of(observations: Observations, action: int) -> tuple[dict, dict[str, list[str]]]:
    """({feature: (type, shape)} in LeRobot's order, {feature of numbers: our keys in it}).

    With cameras all numbers are the state; without, the first key is, and the others are the
    environment's.
    """
    cameras = {key: size for key, size in observations.items() if isinstance(size, tuple)}
    numbers = [key for key in observations if key not in cameras]
    parts = {"observation.state": numbers if cameras else numbers[:1]}
    if not cameras:
        parts["observation.environment_state"] = numbers[1:]
    size = lambda keys: (sum(observations[key] for key in keys),)
    features = {"observation.state": ("STATE", size(parts["observation.state"]))}
    for key, (height, width, channels) in cameras.items():
        name = "observation.image" if key == "image" else f"observation.images.{key}"
        features[name] = ("VISUAL", (channels, height, width))
    if not cameras:
        features["observation.environment_state"] = ("ENV", size(numbers[1:]))
    return {**features, "action": ("ACTION", (action,))}, parts


def config_json(settings: Mapping[str, Any], features: Mapping) -> dict[str, Any]:
    """config.json, in keys that all versions since 0.4 know."""
    bound = settings["sampler.clip"]
    name = lambda key: {own: name for name, own in CHOICES[key].items()}[settings[key]]
    described = {
        key: {"type": kind, "shape": list(shape)} for key, (kind, shape) in features.items()
    }
    horizon = [settings[f"horizon.{part}"] for part in ("predict", "act", "obs")]
    return {
        "type": "diffusion",
        **{key: settings[own] for key, own in reader.KEYS.items()},
        "input_features": {key: x for key, x in described.items() if key != "action"},
        "output_features": {"action": described["action"]},
        "normalization_mapping": MODES,
        "drop_n_last_frames": max(horizon[0] - horizon[1] - horizon[2] + 1, 0),
        "noise_scheduler_type": name("sampler.name"),
        "beta_schedule": name("schedule.name"),
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "prediction_type": name("predict"),
        "clip_sample": bool(np.isfinite(bound)),
        "clip_sample_range": float(bound) if np.isfinite(bound) else 1.0,
        "num_inference_steps": settings["sampler.num_steps"],
        "do_mask_loss_for_padding": settings["loss.mask_padding"],
        "device": "cpu",
        "push_to_hub": False,
        **camera_json(settings, features),
    }


def camera_json(settings: Mapping[str, Any], features: Mapping) -> dict[str, Any]:
    """The keys of config.json on images."""
    cameras = [name for name, (kind, _) in features.items() if kind == "VISUAL"]
    if not cameras:
        return {}
    key = stats_lib.own_name(cameras[0])
    crop = list(settings.get(f"cameras.{key}.crop") or ())
    return {
        "vision_backbone": f"resnet{settings['encoder.depth']}",
        "crop_shape": crop or None,
        "crop_is_random": True,
        "pretrained_backbone_weights": None,
        "use_group_norm": settings["encoder.norm"] == "group",
        "spatial_softmax_num_keypoints": settings["encoder.keypoints"],
        "use_separate_rgb_encoder_per_camera": not settings["encoder.shared"],
    }


def tensors_of(settings: Mapping[str, Any], features: Mapping, params: Mapping) -> dict:
    """model.safetensors: our leaves by LeRobot's names, and the buffers that it keeps."""
    cameras = [shape for kind, shape in features.values() if kind == "VISUAL"]
    shared = settings["encoder.shared"]
    count = min(len(cameras), 1) if shared else len(cameras)
    tables = {
        "encoder": lambda ours: reader.encoder_pieces(count, shared, ours),
        "denoiser": lambda ours: reader.denoiser_pieces(reader.order(features, settings), ours),
    }
    found = {}
    for item, table in tables.items():
        leaves = {path: np.asarray(x) for path, x in weight_map.flatten(params[item]).items()}
        ours = {path: leaf.shape for path, leaf in leaves.items()}
        found.update(weight_map.take_apart(table(ours), leaves) if leaves else {})
    for i in range(count):
        name = f"{reader.MODEL}rgb_encoder" + ("" if shared else f".{i}")
        crop = next(x for key, x in settings.items() if key.endswith(".crop"))
        found[f"{name}.pool.pos_grid"] = grid(tuple(crop) or cameras[i][1:])
    return found if settings["encoder.norm"] == "group" else {**found, **statistics(found)}


def grid(size: tuple[int, int]) -> np.ndarray:
    """(x, y) of the last maps' pixels in [-1, 1], row by row: [H W, 2]."""
    height, width = (math.ceil(x / 32) for x in size)
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    return np.stack([x.reshape(-1), y.reshape(-1)], axis=-1).astype(np.float32)


def statistics(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """BatchNorm's statistics with which a folded scale and bias are what they are."""
    assert np.sqrt(ONE + np.float32(networks.EPSILON)) == 1
    made = {}
    for name, x in found.items():
        norm, _, part = name.rpartition(".")
        if ".backbone." in name and part == "bias":
            made[f"{norm}.running_mean"] = np.zeros_like(x)
            made[f"{norm}.running_var"] = np.full_like(x, ONE)
            made[f"{norm}.num_batches_tracked"] = np.array(0, np.int64)
    return made


def stats_of(features: Mapping, parts: Mapping, found: Units) -> tuple[dict, list[str]]:
    """({"<feature>.<statistic>": numbers}, a line on dims that are an ulp off when read again)."""
    stats, said = {}, []
    for feature, (kind, shape) in features.items():
        keys = parts.get(feature, [stats_lib.own_name(feature)])
        offset, scale = (np.concatenate([np.asarray(found[k][i]) for k in keys]) for i in (0, 1))
        if not (scale > 0).all():
            raise UserError(f"normalizer: {feature}: expected scales above 0, got {scale.min()}.")
        make, names = (
            (normalization.moments, ("mean", "std"))
            if kind == "VISUAL"
            else (normalization.limits, ("min", "max"))
        )
        first, second, off = make(offset, scale)
        size = (shape[0], 1, 1) if kind == "VISUAL" else shape
        for name, x in zip(names, (first, second)):
            stats[f"{feature}.{name}"] = np.ascontiguousarray(x.reshape(size))
        if off:
            said.append(f"{feature}{off}: no float32 limits give back these units to the last bit")
    return stats, said


def processors(features: Mapping) -> dict[str, dict]:
    """The two processors' JSON, by their file's name."""
    described = {
        key: {"type": kind, "shape": list(shape)} for key, (kind, shape) in features.items()
    }
    action = {"action": described["action"]}

    def step(name, **config):
        return {"registry_name": name, "config": config}

    def normalizer(file, place, name, features):
        made = step(name, eps=normalization.EPSILON, features=features, norm_map=MODES)
        return {**made, "state_file": f"{file}_step_{place}_{name}.safetensors"}

    before = [
        step("rename_observations_processor", rename_map={}),
        step("to_batch_processor"),
        step("device_processor", device="cpu", float_dtype=None),
        normalizer("policy_preprocessor", 3, stats_lib.NORMALIZERS[0], described),
    ]
    after = [
        normalizer("policy_postprocessor", 0, stats_lib.NORMALIZERS[1], action),
        step("device_processor", device="cpu", float_dtype=None),
    ]
    names = ("policy_preprocessor", "policy_postprocessor")
    return {f"{name}.json": {"name": name, "steps": x} for name, x in zip(names, (before, after))}


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A .safetensors file, marked as torch's, which LeRobot asks for."""
    save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, path, {"format": "pt"})
