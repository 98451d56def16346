"""Checkpoints of other libraries, with the golden files' weights or with random ones."""

import json

import numpy as np

from support import torch_file
from support.lerobot_folders import GOLDEN, lerobot, weights

__all__ = ["GOLDEN", "hybrid", "lerobot", "lowdim", "multi", "save", "weights"]

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
    """(meta, {name: weight}, the other arrays) of a golden file of Chi et al.'s networks."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    params = {key[6:]: arrays.pop(key) for key in list(arrays) if key.startswith("param/")}
    return json.loads(str(arrays["meta"])), params, arrays


def norm(rng, key, size):
    """One key of Chi et al.'s normalizer, x s + o, and the statistics beside it."""
    scale = rng.uniform(0.5, 2, size).astype(np.float32)
    offset = rng.normal(size=size).astype(np.float32)
    prefix = f"normalizer.params_dict.{key}"
    stats = {f"{prefix}.input_stats.{part}": offset for part in ("min", "max", "mean", "std")}
    return {f"{prefix}.scale": scale, f"{prefix}.offset": offset, **stats}


def lowdim(name):
    """(state dict, cfg, meta, arrays) of a low-dim policy around a golden network."""
    meta, weights, arrays = golden(name)
    rng = np.random.default_rng(0)
    describe = transformer_policy if "transformer" in name else unet_policy
    policy, obs, action, horizon = describe(meta)
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


def unet_policy(meta):
    """(cfg.policy, numbers observed, action size, Tp) of a policy with a U-Net."""
    features = meta["input_dim"]
    obs = (meta.get("global_cond_dim") or 0) // 2  # of two observed steps
    local = meta.get("local_cond_dim") or 0
    arguments = {key: meta[key] for key in meta if key != "kind"}
    policy = {
        "_target_": "diffusion_policy.policy.there.DiffusionUnetLowdimPolicy",
        "model": arguments,
        "obs_as_local_cond": bool(local),
        "obs_as_global_cond": bool(obs),
        "pred_action_steps_only": False,
        "oa_step_convention": True,
    }
    if not obs and not local:  # actions and observations side by side
        return policy, features - 2, 2, 16
    return policy, obs or local, features, 16


def transformer_policy(meta):
    """The same of a policy with a transformer."""
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
    """Writes a checkpoint as Chi et al.'s code does; the raw weights beside the averaged are 0."""
    raw = {key: np.zeros_like(x) for key, x in state.items() if isinstance(x, np.ndarray)}
    payload = {
        "cfg": torch_file.node(cfg),
        "state_dicts": {"model": raw, "ema_model": state},
        "pickles": {"global_step": b"\x80\x04K\x03."},
        **changes,
    }
    return torch_file.save(path, payload)


def hybrid(state, meta):
    """A golden DiffusionModel as Chi et al.'s hybrid image policy: (state dict, cfg).

    Images come first in its shape_meta, so the columns that read the features move.
    """
    cameras, rng = meta["cameras"], np.random.default_rng(0)
    sizes = {"state": meta["state_dim"], **dict.fromkeys(cameras, 64)}
    order = [*cameras, "state"]
    tensors = {}
    for name, x in state.items():
        if name.startswith("unet."):
            tensors[f"model.{chi2023_name(name.removeprefix('unet.'))}"] = x
        elif not name.endswith("pos_grid"):
            tensors[robomimic_name(name, cameras)] = x
    move = columns(sizes, order, steps=2)
    for name, x in tensors.items():
        if name.endswith("cond_encoder.1.weight"):
            tensors[name] = np.concatenate([x[:, :128], x[:, 128:][:, move]], axis=1)
    for key in cameras:
        prefix = f"obs_encoder.obs_nets.{key}."
        for name in [name for name in tensors if name.startswith(prefix + "backbone.")]:
            tensors[name.replace("backbone.", "nets.0.")] = tensors[name]  # a second name
        tensors[f"{prefix}pool.temperature"] = np.ones(1, np.float32)
        tensors[f"{prefix}pool.pos_x"] = tensors[f"{prefix}pool.pos_y"] = np.zeros(
            (1, 4), np.float32
        )
        tensors.update(image_norm(key))
    tensors.update(
        {**norm(rng, "state", sizes["state"]), **norm(rng, "action", meta["action_dim"])}
    )
    tensors["obs_encoder._dummy_variable"] = np.zeros(0, np.float32)
    shapes = {key: {"shape": [3, *meta["image_hw"]], "type": "rgb"} for key in cameras}
    shapes["state"] = {"shape": [meta["state_dim"]], "type": "low_dim"}
    return tensors, image_cfg(meta, shapes, "DiffusionUnetHybridImagePolicy", eval_fixed_crop=True)


def image_norm(key):
    """[0, 1] -> [-1, 1]."""
    prefix = f"normalizer.params_dict.{key}"
    return {f"{prefix}.scale": np.float32([2]), f"{prefix}.offset": np.float32([-1])}


def image_cfg(meta, shapes, target, **policy):
    """cfg of a policy that observes cameras."""
    action = {"shape": [meta["action_dim"]]}
    section = {
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
        "policy": section,
        "training": {"use_ema": True},
    }


def columns(sizes, order, steps):
    """Where the features in `order` lie among those in the order of sizes, all steps."""
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()])))
    one = np.concatenate([starts[key] + np.arange(sizes[key]) for key in order])
    return np.concatenate([step * len(one) + one for step in range(steps)])


def chi2023_name(name):
    """LeRobot's name of a U-Net's tensor -> Chi et al.'s."""
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
    """The same with Chi et al.'s MultiImageObsEncoder: (state dict, cfg).

    The U-Net has random columns for the features that are more here. shared: one encoder for
    all cameras. statistics: BatchNorms. encoder: keys of its config.
    """
    cameras, rng = sorted(meta["cameras"]), np.random.default_rng(1)
    tensors, stem = {}, {"0": "conv1", "1": "bn1"} | {str(4 + i): f"layer{i + 1}" for i in range(4)}
    for name, x in state.items():
        parts = name.split(".")
        if "backbone" in parts:
            at = parts.index("backbone")
            key = meta["cameras"][int(parts[1])] if parts[1].isdigit() else meta["cameras"][0]
            rest = ".".join([stem[parts[at + 1]], *parts[at + 2 :]])
            if not shared or key == meta["cameras"][0]:
                where = "rgb" if shared else key
                tensors[f"obs_encoder.key_model_map.{where}.{rest}"] = x
    if statistics:
        for name in [name for name in tensors if name.endswith("bias")]:
            norm_name = name.removesuffix(".bias")
            tensors[f"{norm_name}.running_mean"] = rng.normal(size=tensors[name].shape).astype(
                np.float32
            )
            tensors[f"{norm_name}.running_var"] = rng.uniform(0.5, 2, tensors[name].shape).astype(
                "f4"
            )
            tensors[f"{norm_name}.num_batches_tracked"] = np.array(3)
    extra = 2 * (512 - 64) * len(cameras)
    for name, x in state.items():
        if name.startswith("unet."):
            if name.endswith("cond_encoder.1.weight"):
                x = np.concatenate([x, rng.normal(size=(len(x), extra)).astype("f4")], axis=1)
            tensors[f"model.{chi2023_name(name.removeprefix('unet.'))}"] = x
    for key in cameras:
        tensors.update(image_norm(key))
    tensors.update(
        {**norm(rng, "state", meta["state_dim"]), **norm(rng, "action", meta["action_dim"])}
    )
    shapes = {"state": {"shape": [meta["state_dim"]]}}
    shapes.update({key: {"shape": [3, *meta["image_hw"]], "type": "rgb"} for key in cameras[::-1]})
    section = {
        "crop_shape": meta["crop"],
        "random_crop": True,
        "share_rgb_model": shared,
        "resize_shape": None,
        **encoder,
    }
    return tensors, image_cfg(meta, shapes, "DiffusionUnetImagePolicy", obs_encoder=section)
