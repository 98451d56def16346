"""Builds the JSON files of a LeRobot policy: config.json and the two processors."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpjax.interop import normalization
from dpjax.interop.imported import Settings
from dpjax.interop.lerobot import reader, stats
from dpjax.interop.lerobot.stats import Features

# How each type of feature is normalized. `stats_of` in `writer` computes these statistics.
MODES = {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ENV": "MIN_MAX", "ACTION": "MIN_MAX"}
CHOICES = {  # {(group, name) of a setting: {LeRobot's value: ours}}
    ("schedule", "name"): reader.SCHEDULES,
    ("sampler", "name"): reader.SAMPLERS,
    ("policy", "prediction_type"): reader.PREDICTION_TYPES,
}


def config_json(settings: Settings, features: Features) -> dict[str, Any]:
    """config.json, with the keys that all versions since 0.4 know."""
    # What several keys below are computed from.
    described = _described(features)
    horizon = settings["horizon"]
    clip = settings["sampler"]["clip"]
    return {
        "type": "diffusion",
        # Sizes, horizons and levels.
        **{key: settings[group][name] for key, (group, name) in reader.KEYS.items()},
        # What the policy observes and predicts, and how it is normalized.
        "input_features": {key: x for key, x in described.items() if key != "action"},
        "output_features": {"action": described["action"]},
        "normalization_mapping": MODES,
        # LeRobot's default leaves out the last windows of an episode, which are mostly padding.
        "drop_n_last_frames": max(horizon["predict"] - horizon["act"] - horizon["obs"] + 1, 0),
        # The noise schedule and the sampler.
        "noise_scheduler_type": _their_value(settings, ("sampler", "name")),
        "beta_schedule": _their_value(settings, ("schedule", "name")),
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "prediction_type": _their_value(settings, ("policy", "prediction_type")),
        "clip_sample": bool(np.isfinite(clip)),
        # JSON has no infinity, which stands for no clipping here.
        "clip_sample_range": float(clip) if np.isfinite(clip) else 1.0,
        "num_inference_steps": settings["sampler"]["num_steps"],
        # For training that continues in LeRobot.
        "do_mask_loss_for_padding": settings["loss"]["mask_padding"],
        # Keys that LeRobot's loader requires and that do not affect the actions.
        "device": "cpu",
        "push_to_hub": False,
        **_camera_json(settings, features),
    }


def _their_value(settings: Settings, setting: tuple[str, str]) -> str:
    # The reader's tables are one to one, so they can be inverted.
    group, name = setting
    inverse = {ours: theirs for theirs, ours in CHOICES[setting].items()}
    return inverse[settings[group][name]]


def _described(features: Features) -> dict[str, dict]:
    """The features in the form of LeRobot's JSON."""
    return {
        name: {"type": feature_type, "shape": list(shape)}
        for name, (feature_type, shape) in features.items()
    }


def _camera_json(settings: Settings, features: Features) -> dict[str, Any]:
    """The keys of config.json about images."""
    cameras = [name for name, (feature_type, _) in features.items() if feature_type == "VISUAL"]
    if not cameras:
        return {}
    encoder = settings["encoder"]
    # All cameras have the same crop, see `writer.check_cameras`; this is the first one's.
    view = settings["cameras"].get(stats.our_name(cameras[0]), {})
    return {
        "vision_backbone": f"resnet{encoder['depth']}",
        "crop_shape": list(view.get("crop") or ()) or None,
        "crop_is_random": True,  # in training; evaluation takes the center, as here
        "pretrained_backbone_weights": None,  # the weights are in the folder
        "use_group_norm": encoder["norm"] == "group",
        "spatial_softmax_num_keypoints": encoder["keypoints"],
        "use_separate_rgb_encoder_per_camera": not encoder["shared"],
    }


def processors(features: Features) -> dict[str, dict]:
    """{file name: content} of the two processors."""
    described = _described(features)
    action = {"action": described["action"]}
    # The same steps in the same order as in the files of LeRobot's training.
    device = _step("device_processor", device="cpu", float_dtype=None)
    steps = {
        stats.INPUTS: [
            _step("rename_observations_processor", rename_map={}),
            _step("to_batch_processor"),
            device,
            _normalizer(stats.INPUTS, 3, stats.NORMALIZER, described),
        ],
        stats.OUTPUTS: [_normalizer(stats.OUTPUTS, 0, stats.UNNORMALIZER, action), device],
    }
    return {
        name: {"name": name.removesuffix(".json"), "steps": content}
        for name, content in steps.items()
    }


def _step(name: str, **config) -> dict[str, Any]:
    return {"registry_name": name, "config": config}


def _normalizer(file: str, position: int, name: str, features: Mapping) -> dict[str, Any]:
    """A step that normalizes or unnormalizes, with the name of its file of statistics."""
    # The file's name contains the step's position in the list.
    step = _step(name, eps=normalization.EPSILON, features=features, norm_map=MODES)
    state_file = f"{file.removesuffix('.json')}_step_{position}_{name}.safetensors"
    return {**step, "state_file": state_file}


def state_files(documents: Mapping[str, dict]) -> list[str]:
    """Names of the files with statistics that the processors refer to."""
    # Only steps with statistics have the key.
    steps = [step for document in documents.values() for step in document.get("steps", ())]
    return [step["state_file"] for step in steps if "state_file" in step]
