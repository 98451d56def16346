"""Checkpoints of other libraries, made of the golden files' weights or of random ones."""

import json
from pathlib import Path

import numpy as np
import torch_file

GOLDEN = Path(__file__).parent / "golden"
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
        "n_obs_steps": meta.get("n_obs_steps", 2),
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
        "_target_": "diffusion_policy.policy.diffusion_unet_lowdim_policy.DiffusionUnetLowdimPolicy",
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


def save(path, state, cfg, **changes):
    """The original's checkpoint: averaged weights that count, others that do not."""
    raw = {key: np.zeros_like(value) for key, value in state.items()}
    payload = {
        "cfg": torch_file.node(cfg),
        "state_dicts": {"model": raw, "ema_model": state},
        "pickles": {"global_step": b"\x80\x04K\x03."},
        **changes,
    }
    return torch_file.save(path, payload)
