"""Reads LeRobot's diffusion policies as an `ImportedPolicy`.

    config.json           sizes, features, sampler
    model.safetensors     diffusion.unet.* · diffusion.rgb_encoder[.<i>].*
    the other files       statistics, see `stats`

The features of a step are the state, the cameras, then the environment's state in LeRobot, and
all numbers, then the cameras in dpjax. `writer` writes this layout.
"""

from collections.abc import Mapping
import functools
import logging
from pathlib import Path
import re

import numpy as np

from dpjax.core.unread import warn_unread
from dpjax.interop import resnets, unknown
from dpjax.interop.imported import (
    MAX_SIZE,
    ImportedPolicy,
    Settings,
    check_sizes,
    choose,
    override,
    refuse,
    sampler_spacing,
)
from dpjax.interop.lerobot import stats, tables
from dpjax.interop.lerobot.files import read_json, read_safetensors
from dpjax.interop.lerobot.stats import Features, our_name
from dpjax.interop.weight_map import Tensors, as_float32, first_names

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
# Names of the statistics in model.safetensors, before version 0.4.
STATISTICS = r"(normalize_inputs|normalize_targets|unnormalize_outputs)\.buffer_\w+\.\w+"
COUNT = ".num_batches_tracked"  # of a BatchNorm; the only integers in a policy
PIXEL_GRID = ".pos_grid"  # a spatial softmax's pixel coordinates, which dpjax computes
# {feature type: number of axes}, in the order in which LeRobot concatenates the features.
RANKS = {"STATE": 1, "VISUAL": 3, "ENV": 1, "ACTION": 1}
KEYS = {  # {key of config.json: (group, name) of our setting}
    "n_obs_steps": ("horizon", "obs"),
    "horizon": ("horizon", "predict"),
    "n_action_steps": ("horizon", "act"),
    "down_dims": ("denoiser", "widths"),
    "kernel_size": ("denoiser", "kernel_size"),
    "n_groups": ("denoiser", "groups"),
    "diffusion_step_embed_dim": ("denoiser", "time_features"),
    "use_film_scale_modulation": ("denoiser", "film_scale"),
    "num_train_timesteps": ("schedule", "num_levels"),
}
# Other keys that are read, and keys of trainings, machines and the Hub, which change no action.
KNOWN = frozenset(
    {
        *KEYS,
        *("type", "input_features", "output_features", "normalization_mapping"),
        *("noise_scheduler_type", "beta_schedule", "beta_start", "beta_end", "prediction_type"),
        *("clip_sample", "clip_sample_range", "num_inference_steps", "vision_backbone"),
        *("resize_shape", "crop_shape", "crop_is_random", "use_group_norm", "crop_ratio"),
        *("spatial_softmax_num_keypoints", "use_separate_rgb_encoder_per_camera"),
        *("pretrained_backbone_weights", "do_mask_loss_for_padding", "drop_n_last_frames"),
        *("optimizer_lr", "optimizer_betas", "optimizer_eps", "optimizer_weight_decay"),
        *("scheduler_name", "scheduler_warmup_steps", "gradient_checkpointing", "device"),
        *("compile_model", "compile_mode", "push_to_hub", "repo_id", "private", "tags", "license"),
        *("pretrained_path", "pretrained_revision", "use_amp"),
    }
)
# {key: its values that leave the actions as they are here}.
NEUTRAL = {"use_relative_actions": (False,), "action_is_delta": (False,), "use_peft": (False,)}
# {LeRobot's value: ours}; a value that is not here raises an error.
SCHEDULES = {"squaredcos_cap_v2": "cosine", "linear": "linear", "scaled_linear": "scaled_linear"}
SAMPLERS = {"DDPM": "ddpm", "DDIM": "ddim"}
PREDICTION_TYPES = {"epsilon": "epsilon", "sample": "sample"}
DEPTHS = {"resnet18": 18, "resnet34": 34}

log = logging.getLogger("dpjax")


def read(
    folder: Path,
    observations: Mapping[str, int] | None = None,
    overrides: Settings | None = None,
) -> ImportedPolicy:
    """The policy in a folder; raises UserError, in one line, for anything else.

    observations: {name: size} of its numbers, first the state, then the environment's state.
    overrides: the user's settings, which replace those of config.json.
    """
    # What kind of policy it is, and what it observes.
    entries = read_json(folder / CONFIG)
    source = str(folder / CONFIG)
    choose(source, "type", entries.get("type"), {"diffusion": None})
    check_unknown(source, entries)
    features = features_of(source, entries)

    # The weights. Before version 0.4, the same file has the statistics.
    tensors = read_tensors(folder / WEIGHTS)
    buffers = {name: x for name, x in tensors.items() if re.fullmatch(STATISTICS, name)}
    tensors = {name: x for name, x in tensors.items() if name not in buffers}
    normalizers = stats.read(folder, entries, features, buffers)
    named, units = stats.units_of(folder, features, normalizers, observations)

    # The settings, with the user's overrides; sizes are checked before a network is built.
    settings = override(settings_from(source, entries, features, tensors), overrides or {})
    check_sizes(source, settings)
    if settings["encoder"].get("norm") == "frozen":
        log.warning("BatchNorms are folded with their statistics: fine-tuning leaves them fixed")
    # The weight tables need the number of encoders and the order of the features.
    shared = settings["encoder"]["shared"]
    encoders = tables.encoder_count(features, shared)
    return ImportedPolicy(
        source=str(folder),
        settings=settings,
        observations=named,
        action_size=features["action"][1][0],
        tensors=resnets.fold_batch_norms(tensors),
        encoder=functools.partial(tables.encoder_table, encoders, shared),
        denoiser=functools.partial(tables.denoiser_table, tables.order_of(features, settings)),
        units=units,
    )


def check_unknown(source: str, entries: Mapping) -> None:
    """Refuses keys of config.json that may change what a policy computes; lists the others."""
    unknown.check(source, entries, KNOWN, NEUTRAL)
    names = []
    # LeRobot crops by this share after a resize, which `camera_settings` refuses.
    if entries.get("crop_ratio") not in (None, 1):
        names.append(f"crop_ratio={entries['crop_ratio']}")
    warn_unread(source, names, "without resize_shape it has no effect; crop_shape counts")
    if entries.get("use_amp"):
        reason = "mixed precision is not used here: actions differ by its rounding"
        warn_unread(source, ["use_amp=True"], reason)
    for section in ("input_features", "output_features"):
        features = entries.get(section)
        for name, feature in features.items() if isinstance(features, Mapping) else ():
            if isinstance(feature, Mapping):
                unknown.check(source, feature, ("type", "shape"), where=f"{section}.{name}")


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """A policy's weights and statistics as float32; a warning names tensors that are left out."""
    arrays = read_safetensors(path)
    # Buffers are left out: counts before `as_float32`, which refuses integers, grids after it.
    counts = [name for name in arrays if name.endswith(COUNT)]
    grids = [name for name in arrays if name.endswith(PIXEL_GRID)]
    if ignored := [name for name in arrays if name in {*counts, *grids}]:
        log.warning(
            "%d tensors are not weights and are left out: %s", len(ignored), first_names(ignored)
        )
    floats = {name: x for name, x in arrays.items() if name not in set(counts)}
    tensors = as_float32(str(path), floats)
    # torch.compile inserts "_orig_mod" into the names of the modules that it wraps.
    return {
        name.replace("._orig_mod", ""): x for name, x in tensors.items() if name not in set(grids)
    }


def features_of(source: str, entries: Mapping) -> Features:
    """{feature: (type, shape)} in the order of LeRobot's vector; entries: of config.json."""
    features = {}
    # Inputs and outputs go into one dict, since the type tells them apart.
    for section in ("input_features", "output_features"):
        if not isinstance(entries.get(section), Mapping):
            raise refuse(source, section, "{feature: type and shape}", entries.get(section))
        for name, feature in entries[section].items():
            features[name] = _feature(source, f"{section}.{name}", feature)
    # dpjax needs an action and an observation, and LeRobot has one state at most.
    types = [feature_type for feature_type, _ in features.values()]
    has_action = "action" in features and features["action"][0] == "ACTION"
    if not has_action or len(features) < 2:
        raise refuse(source, "features", "observations and action", ", ".join(features))
    for feature_type in ("STATE", "ENV", "ACTION"):
        if types.count(feature_type) > 1:
            raise refuse(source, "features", f"one {feature_type}", types.count(feature_type))
    # LeRobot concatenates the features by type, whatever their order in config.json.
    order = list(RANKS)
    return dict(sorted(features.items(), key=lambda item: order.index(item[1][0])))


def _feature(source: str, key: str, feature) -> tuple[str, tuple[int, ...]]:
    """(type, shape) of one feature in config.json."""
    # Anything but an object is treated as empty, and raises the error about its type below.
    feature = feature if isinstance(feature, Mapping) else {}
    shape = feature.get("shape")
    rank = choose(source, f"{key}.type", feature.get("type"), RANKS)
    # Sizes are bounded here, before arrays of these sizes are allocated for the statistics.
    sizes = isinstance(shape, list) and all(type(x) is int and 0 < x <= MAX_SIZE for x in shape)
    if not sizes or len(shape) != rank or (rank == 3 and shape[0] != 3):
        expected = "[3, height, width]" if rank == 3 else "[size]"
        raise refuse(source, f"{key}.shape", expected, shape)
    return feature["type"], tuple(shape)


def settings_from(source: str, entries: Mapping, features: Features, tensors: Tensors) -> Settings:
    """The settings in config.json; raises UserError for options that dpjax does not have."""
    # Sizes have no default, because a wrong guess would build another network.
    for key in KEYS:
        if key not in entries:
            raise refuse(source, key, "a value", "nothing")
    choice = lambda key, table: choose(source, key, entries.get(key), table)
    settings: Settings = {
        "denoiser": {"name": "unet1d"},
        "encoder": {"shared": False},
        "horizon": {},
        "loss": {"mask_padding": entries.get("do_mask_loss_for_padding", False)},
        "schedule": {"name": choice("beta_schedule", SCHEDULES)},
    }
    for key, (group, name) in KEYS.items():
        settings[group][name] = entries[key]

    # The noise schedule and the sampler.
    sampler = {"name": choice("noise_scheduler_type", SAMPLERS)}
    prediction_type = choice("prediction_type", PREDICTION_TYPES)
    if settings["schedule"]["name"] != "cosine":  # diffusers ignores both for the cosine schedule
        choice("beta_start", {1e-4: None})
        choice("beta_end", {0.02: None})
    # Predicted actions are clipped to [-clip, clip], or not at all.
    clips = entries.get("clip_sample", True)
    levels = settings["schedule"]["num_levels"]
    sampler["clip"] = entries.get("clip_sample_range", 1.0) if clips else np.inf
    sampler["num_steps"] = entries.get("num_inference_steps") or levels
    sampler["spacing"] = sampler_spacing(levels, sampler["num_steps"])
    sampler["diffusers"] = "current"
    settings["sampler"] = sampler
    settings["policy"] = {"prediction_type": prediction_type, "condition": "features"}
    # Only policies with cameras have an encoder.
    if any(feature_type == "VISUAL" for feature_type, _ in features.values()):
        settings.update(camera_settings(source, entries, features, tensors))
    return settings


def camera_settings(
    source: str, entries: Mapping, features: Features, tensors: Tensors
) -> Settings:
    """The groups "encoder" and "cameras" of the settings."""
    if (resize := entries.get("resize_shape")) is not None:
        raise refuse(source, "resize_shape", "none: dpjax resizes otherwise", resize)
    depth = choose(source, "vision_backbone", entries.get("vision_backbone"), DEPTHS)
    keypoints = entries.get("spatial_softmax_num_keypoints", 32)
    if type(keypoints) is not int or keypoints < 1:
        raise refuse(source, "spatial_softmax_num_keypoints", "a number above 0", keypoints)
    crop = entries.get("crop_shape") or []  # null: the full image
    if not isinstance(crop, list) or len(crop) not in (0, 2):
        raise refuse(source, "crop_shape", "[height, width] or null", crop)
    # config.json lacks the width of the ResNet, which is the size of its first kernel.
    stems = (x.shape[0] for name, x in tensors.items() if name.endswith("backbone.0.weight"))
    # LeRobot's encoder is always a ResNet with a spatial softmax.
    encoder = {
        "depth": depth,
        "width": next(stems, 64),
        "pool": "spatial_softmax",
        "keypoints": keypoints,
        "features": 2 * keypoints,  # x and y of each keypoint
        "shared": not entries.get("use_separate_rgb_encoder_per_camera", False),
        "norm": "group" if uses_group_norm(source, entries, tensors) else "frozen",
    }
    views = {
        our_name(name): {"size": shape[1:], "resize": (), "crop": tuple(crop)}
        for name, (feature_type, shape) in features.items()
        if feature_type == "VISUAL"
    }
    return {"encoder": encoder, "cameras": views}


def uses_group_norm(source: str, entries: Mapping, tensors: Tensors) -> bool:
    """Whether the encoders have GroupNorms; config.json and the tensors must agree."""
    # Without this check a contradiction would appear as hundreds of missing tensors.
    group = entries.get("use_group_norm", True)
    has_statistics = any(name.endswith(".running_mean") for name in tensors)
    if not isinstance(group, bool) or group == has_statistics:
        there = "BatchNorm's statistics" if has_statistics else "none of BatchNorm's statistics"
        expected = f"{not has_statistics}, for there are {there}"
        raise refuse(source, "use_group_norm", expected, group)
    return group
