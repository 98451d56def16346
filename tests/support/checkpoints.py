"""Checkpoints of other libraries, made of the golden files' weights or of random ones."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from support import torch_file

GOLDEN = Path(__file__).parents[1] / "golden"
SCHEDULER = {
    "_target_": "diffusers.schedulers.scheduling_ddpm.DDPMScheduler",
    "num_train_timesteps": 100,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "squaredcos_cap_v2",
    "variance_type": "fixed_small",
    "clip_sample": True,
    "prediction_type": "epsilon",
}


def golden(name):
    """(meta, {name: weight}, the other arrays) of a golden file of the original's networks."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as found:
        arrays = dict(found)
    weights = {key[6:]: arrays.pop(key) for key in list(arrays) if key.startswith("param/")}
    return json.loads(str(arrays["meta"])), weights, arrays


def norm(rng, key, size, dims=None):
    """A key of the original's normalizer: x s + o, and what it was made of."""
    scale = rng.uniform(0.5, 2, size).astype(np.float32)
    offset = rng.normal(size=size).astype(np.float32)
    prefix = f"normalizer.params_dict.{key}"
    stats = {f"{prefix}.input_stats.{part}": offset for part in ("min", "max", "mean", "std")}
    return {f"{prefix}.scale": scale, f"{prefix}.offset": offset, **stats}


def lowdim(name):
    """(state dict, cfg, meta, arrays) of a low-dim policy around a golden network."""
    meta, weights, arrays = golden(name)
    rng = np.random.default_rng(0)
    made = made_transformer if "transformer" in name else made_unet
    policy, obs, action, horizon = made(meta)
    state = {f"model.{key}": value for key, value in weights.items()}
    state.update({**norm(rng, "obs", obs), **norm(rng, "action", action)})
    state["mask_generator._dummy_variable"] = np.zeros(0, np.float32)
    cfg = {
        "horizon": horizon,
        "n_obs_steps": meta.get("n_obs_steps") or 2,
        "n_action_steps": 4,
        "policy": {**policy, "noise_scheduler": SCHEDULER, "num_inference_steps": 100},
        "training": {"use_ema": True, "seed": 42},
        "when": "${now:%Y.%m.%d}",
    }
    return state, cfg, meta, arrays


def made_unet(meta):
    """(cfg.policy, numbers observed, numbers of an action, Tp)."""
    features = meta["input_dim"]
    obs = {True: meta.get("global_cond_dim") or 0, False: 0}[True] // 2
    local = meta.get("local_cond_dim") or 0
    inside = {key: meta[key] for key in meta if key != "kind"}
    policy = {
        "_target_": "diffusion_policy.policy.there.DiffusionUnetLowdimPolicy",
        "model": inside,
        "obs_as_local_cond": bool(local),
        "obs_as_global_cond": bool(obs),
        "pred_action_steps_only": False,
        "oa_step_convention": True,
    }
    if not obs and not local:  # actions and observations side by side
        return policy, features - 2, 2, 16
    return policy, obs or local, features, 16


def made_transformer(meta):
    """The same around a transformer."""
    policy = {
        "_target_": "diffusion_policy.policy.diffusion_transformer_lowdim_policy."
        "DiffusionTransformerLowdimPolicy",
        "model": {key: meta[key] for key in meta if key != "kind"},
        "obs_as_cond": bool(meta["cond_dim"]),
        "pred_action_steps_only": False,
    }
    if not meta["cond_dim"]:
        return policy, meta["input_dim"] - 2, 2, meta["horizon"]
    return policy, meta["cond_dim"], meta["input_dim"], meta["horizon"]


def save(path, state, cfg, /, **changes):
    """The original's checkpoint: averaged weights that count, others that do not."""
    raw = {key: np.zeros_like(x) for key, x in state.items() if isinstance(x, np.ndarray)}
    payload = {
        "cfg": torch_file.node(cfg),
        "state_dicts": {"model": raw, "ema_model": state},
        "pickles": {"global_step": b"\x80\x04K\x03."},
        **changes,
    }
    return torch_file.save(path, payload)


def lerobot(folder, name, *, old=False, **changes):
    """A folder of LeRobot's around a golden DiffusionModel; returns (folder, meta, arrays).

    Its units are those of the golden inputs, which are normalized. old: the layout before 0.4.
    changes: keys of config.json.
    """
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as found:
        arrays = dict(found)
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
    made = {}
    for name in sorted(shapes):
        shape = shapes[name]
        if name.endswith("pos_grid"):
            continue
        n = rng.standard_normal(shape).astype(np.float32)
        if len(shape) > 1:
            made[name] = n / np.float32(np.sqrt(np.prod(shape[1:])))
        elif name.endswith("weight"):
            made[name] = 1 + np.float32(0.1) * n
        else:
            made[name] = np.float32(0.1) * n
    return made


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
    """The statistics as LeRobot before 0.4 has them in model.safetensors."""
    made = {}
    for key, x in stats.items():
        feature, _, stat = key.rpartition(".")
        name = f"buffer_{feature.replace('.', '_')}.{stat}"
        if feature != "action":
            made[f"normalize_inputs.{name}"] = x
        else:
            made[f"normalize_targets.{name}"] = made[f"unnormalize_outputs.{name}"] = x
    return made


def write_processors(folder, inputs, outputs, stats):
    """The two processors, and the statistics beside them."""
    modes = {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"}
    files = {
        "policy_preprocessor": (3, "normalizer_processor", {**inputs, **outputs}),
        "policy_postprocessor": (0, "unnormalizer_processor", outputs),
    }
    for name, (place, step, features) in files.items():
        state_file = f"{name}_step_{place}_{step}.safetensors"
        config = {"eps": 1e-8, "features": features, "norm_map": modes}
        made = {"registry_name": step, "config": config, "state_file": state_file}
        others = ("rename_observations_processor", "to_batch_processor", "device_processor")
        steps = [{"registry_name": other, "config": {}} for other in others[:place]]
        content = {"name": name, "steps": [*steps, made]}
        (folder / f"{name}.json").write_text(json.dumps(content))
        save_file(stats, folder / state_file)


def hybrid(state, meta):
    """The policy around a golden DiffusionModel as the original's hybrid one; (state, cfg).

    Images come first in its shape_meta, so the columns that read the features move.
    """
    cameras, rng = meta["cameras"], np.random.default_rng(0)
    sizes = {"state": meta["state_dim"], **dict.fromkeys(cameras, 64)}
    order = [*cameras, "state"]
    made = {}
    for name, x in state.items():
        if name.startswith("unet."):
            made[f"model.{original_name(name.removeprefix('unet.'))}"] = x
        elif not name.endswith("pos_grid"):
            made[robomimic_name(name, cameras)] = x
    move = columns(sizes, order, steps=2)
    for name, x in made.items():
        if name.endswith("cond_encoder.1.weight"):
            made[name] = np.concatenate([x[:, :128], x[:, 128:][:, move]], axis=1)
    for key in cameras:
        prefix = f"obs_encoder.obs_nets.{key}."
        for name in [name for name in made if name.startswith(prefix + "backbone.")]:
            made[name.replace("backbone.", "nets.0.")] = made[name]  # a second name
        made[f"{prefix}pool.temperature"] = np.ones(1, np.float32)
        made[f"{prefix}pool.pos_x"] = made[f"{prefix}pool.pos_y"] = np.zeros((1, 4), np.float32)
        made.update(image_norm(key))
    made.update({**norm(rng, "state", sizes["state"]), **norm(rng, "action", meta["action_dim"])})
    made["obs_encoder._dummy_variable"] = np.zeros(0, np.float32)
    shapes = {key: {"shape": [3, *meta["image_hw"]], "type": "rgb"} for key in cameras}
    shapes["state"] = {"shape": [meta["state_dim"]], "type": "low_dim"}
    return made, image_cfg(meta, shapes, "DiffusionUnetHybridImagePolicy", eval_fixed_crop=True)


def image_norm(key):
    """[0, 1] -> [-1, 1]."""
    prefix = f"normalizer.params_dict.{key}"
    return {f"{prefix}.scale": np.float32([2]), f"{prefix}.offset": np.float32([-1])}


def image_cfg(meta, shapes, target, **policy):
    """cfg of a policy that sees images."""
    action = {"shape": [meta["action_dim"]]}
    inside = {
        "_target_": f"diffusion_policy.policy.there.{target}",
        "crop_shape": meta["crop"],
        "diffusion_step_embed_dim": 128,
        "down_dims": meta["down_dims"],
        "kernel_size": 5,
        "n_groups": 8,
        "cond_predict_scale": True,
        "obs_as_global_cond": True,
        "num_inference_steps": 100,
        "noise_scheduler": SCHEDULER,
        **policy,
    }
    return {
        "horizon": 16,
        "n_obs_steps": 2,
        "n_action_steps": 8,
        "shape_meta": {"obs": shapes, "action": action},
        "policy": inside,
        "training": {"use_ema": True},
    }


def columns(sizes, order, steps):
    """Where the features in `order` lie among those in the order of sizes, all steps."""
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()])))
    one = np.concatenate([starts[key] + np.arange(sizes[key]) for key in order])
    return np.concatenate([step * len(one) + one for step in range(steps)])


def original_name(name):
    """LeRobot's name of a U-Net's tensor -> the original's."""
    for i in range(2):
        name = name.replace(f".conv{i + 1}.", f".blocks.{i}.")
    parts = name.split(".")
    if parts[0] in ("down_modules", "up_modules") and parts[2] == "2":
        parts.insert(3, "conv")
    return ".".join(parts)


def robomimic_name(name, cameras):
    """LeRobot's name of an encoder's tensor -> robomimic's."""
    parts = name.split(".")[1:]
    key = cameras[int(parts.pop(0))] if parts[0].isdigit() else cameras[0]
    rest = ".".join(parts).replace("backbone.", "backbone.nets.").replace("out.", "nets.3.")
    return f"obs_encoder.obs_nets.{key}.{rest}"


def multi(state, meta, shared=False, statistics=False, **encoder):
    """The same as the original's MultiImageObsEncoder, its U-Net drawn anew; (state, cfg)."""
    cameras, rng = sorted(meta["cameras"]), np.random.default_rng(1)
    made, stem = {}, {"0": "conv1", "1": "bn1"} | {str(4 + i): f"layer{i + 1}" for i in range(4)}
    for name, x in state.items():
        parts = name.split(".")
        if "backbone" in parts:
            at = parts.index("backbone")
            key = meta["cameras"][int(parts[1])] if parts[1].isdigit() else meta["cameras"][0]
            rest = ".".join([stem[parts[at + 1]], *parts[at + 2 :]])
            if not shared or key == meta["cameras"][0]:
                where = "rgb" if shared else key
                made[f"obs_encoder.key_model_map.{where}.{rest}"] = x
    if statistics:
        for name in [name for name in made if name.endswith("bias")]:
            norm_name = name.removesuffix(".bias")
            made[f"{norm_name}.running_mean"] = rng.normal(size=made[name].shape).astype(np.float32)
            made[f"{norm_name}.running_var"] = rng.uniform(0.5, 2, made[name].shape).astype("f4")
            made[f"{norm_name}.num_batches_tracked"] = np.array(3)
    extra = 2 * (512 - 64) * len(cameras)
    for name, x in state.items():
        if name.startswith("unet."):
            if name.endswith("cond_encoder.1.weight"):
                x = np.concatenate([x, rng.normal(size=(len(x), extra)).astype("f4")], axis=1)
            made[f"model.{original_name(name.removeprefix('unet.'))}"] = x
    for key in cameras:
        made.update(image_norm(key))
    made.update(
        {**norm(rng, "state", meta["state_dim"]), **norm(rng, "action", meta["action_dim"])}
    )
    shapes = {"state": {"shape": [meta["state_dim"]]}}
    shapes.update({key: {"shape": [3, *meta["image_hw"]], "type": "rgb"} for key in cameras[::-1]})
    inside = {
        "crop_shape": meta["crop"],
        "random_crop": True,
        "share_rgb_model": shared,
        "resize_shape": None,
        **encoder,
    }
    return made, image_cfg(meta, shapes, "DiffusionUnetImagePolicy", obs_encoder=inside)
