"""Folders of LeRobot's with the golden files' diffusion policies."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

GOLDEN = Path(__file__).parents[1] / "golden"


def lerobot(folder, name, *, old=False, **changes):
    """Writes a folder of LeRobot's with a golden DiffusionModel; returns (folder, meta, arrays).

    Its normalizer changes nothing, because the golden inputs are normalized. old: the layout
    before version 0.4. changes: keys of config.json.
    """
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    meta = json.loads(str(arrays["meta"]))
    state = {f"diffusion.{key}": x for key, x in weights(meta).items()}
    cameras = [f"observation.images.{key}" for key in meta["cameras"]]
    inputs = {"observation.state": {"type": "STATE", "shape": [meta["state_dim"]]}}
    inputs.update({c: {"type": "VISUAL", "shape": [3, *meta["image_hw"]]} for c in cameras})
    outputs = {"action": {"type": "ACTION", "shape": [meta["action_dim"]]}}
    config = {**lerobot_config(meta), "input_features": inputs, "output_features": outputs}
    folder.mkdir(parents=True)
    stats = {}
    for feature, (low, high) in {"observation.state": (-1, 1), "action": (-1, 1)}.items():
        size = {**inputs, **outputs}[feature]["shape"][0]
        stats[f"{feature}.min"] = np.full(size, low, np.float32)
        stats[f"{feature}.max"] = np.full(size, high, np.float32)
    for camera in cameras:
        stats[f"{camera}.mean"] = np.zeros((3, 1, 1), np.float32)
        stats[f"{camera}.std"] = np.full((3, 1, 1), 1 / 255, np.float32)
    if old:
        state.update(old_stats(stats))
    else:
        write_processors(folder, inputs, outputs, stats)
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    save_file({k: np.ascontiguousarray(x) for k, x in state.items()}, folder / "model.safetensors")
    return folder, meta, arrays


def weights(meta: dict) -> dict[str, np.ndarray]:
    """The golden files' state dict, drawn as their README says."""
    rng, shapes = np.random.default_rng(meta["seed"]), meta["shapes"]
    arrays = {}
    for name in sorted(shapes):
        shape = shapes[name]
        if name.endswith("pos_grid"):
            continue
        n = rng.standard_normal(shape).astype(np.float32)
        if len(shape) > 1:
            arrays[name] = n / np.float32(np.sqrt(np.prod(shape[1:])))
        elif name.endswith("weight"):
            arrays[name] = 1 + np.float32(0.1) * n
        else:
            arrays[name] = np.float32(0.1) * n
    return arrays


def lerobot_config(meta):
    """config.json without its features."""
    return {
        "type": "diffusion",
        "n_obs_steps": 2,
        "horizon": 16,
        "n_action_steps": 8,
        "down_dims": meta["down_dims"],
        "kernel_size": 5,
        "n_groups": 8,
        "diffusion_step_embed_dim": 128,
        "use_film_scale_modulation": True,
        "noise_scheduler_type": meta["sampler"],
        "num_train_timesteps": 100,
        "beta_schedule": "squaredcos_cap_v2",
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "prediction_type": "epsilon",
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "num_inference_steps": meta["num_inference_steps"],
        "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"},
        "vision_backbone": "resnet18",
        "crop_shape": meta["crop"],
        "crop_is_random": True,
        "pretrained_backbone_weights": None,
        "use_group_norm": meta["use_group_norm"],
        "spatial_softmax_num_keypoints": 32,
        "use_separate_rgb_encoder_per_camera": meta["separate_encoders"],
    }


def old_stats(stats):
    """The statistics as tensors of model.safetensors, where LeRobot before 0.4 keeps them."""
    tensors = {}
    for key, x in stats.items():
        feature, _, stat = key.rpartition(".")
        name = f"buffer_{feature.replace('.', '_')}.{stat}"
        if feature != "action":
            tensors[f"normalize_inputs.{name}"] = x
        else:
            tensors[f"normalize_targets.{name}"] = tensors[f"unnormalize_outputs.{name}"] = x
    return tensors


def write_processors(folder, inputs, outputs, stats):
    """Writes the two processors, and the statistics beside them."""
    modes = {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"}
    files = {
        "policy_preprocessor": (3, "normalizer_processor", {**inputs, **outputs}),
        "policy_postprocessor": (0, "unnormalizer_processor", outputs),
    }
    for name, (place, step, features) in files.items():
        state_file = f"{name}_step_{place}_{step}.safetensors"
        config = {"eps": 1e-8, "features": features, "norm_map": modes}
        description = {"registry_name": step, "config": config, "state_file": state_file}
        others = ("rename_observations_processor", "to_batch_processor", "device_processor")
        steps = [{"registry_name": other, "config": {}} for other in others[:place]]
        content = {"name": name, "steps": [*steps, description]}
        (folder / f"{name}.json").write_text(json.dumps(content))
        save_file(stats, folder / state_file)
