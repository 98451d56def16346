"""Which keys of Chi et al.'s configs are read; the others are refused or listed."""

from collections.abc import Mapping
from typing import Any

from dpjax.interop import unknown
from dpjax.interop.chi2023.config import CONDITIONS, FIXED, HORIZON, TRANSFORMER, UNET, get

NETWORK = frozenset((*UNET, *TRANSFORMER, "time_as_cond", "_target_"))
SIZES = frozenset(("obs_dim", "action_dim", "input_dim", "output_dim", "cond_dim"))
# {section of the config: its keys that are read, or whose values the tensors show}.
KNOWN = {
    # Trainings, data sets and their folders; none changes what a trained policy computes.
    "": frozenset(
        {
            *("name", "_target_", "defaults", "task_name", "exp_name", "shape_meta", "policy"),
            *("ema", "dataloader", "val_dataloader", "optimizer", "training", "logging"),
            *("checkpoint", "multi_run", "hydra", "task", "eval", "dataset_obs_steps"),
            *("keypoint_visible_rate", "seed"),
            *HORIZON,
            *CONDITIONS,
            *SIZES,
        }
    ),
    "policy": NETWORK
    | SIZES
    | frozenset((*HORIZON, *CONDITIONS, "model", "noise_scheduler", "shape_meta", "obs_encoder"))
    | frozenset(("num_inference_steps", "pred_action_steps_only", "oa_step_convention"))
    | frozenset(("crop_shape", "obs_encoder_group_norm", "eval_fixed_crop")),
    "policy.model": NETWORK
    | SIZES
    | frozenset(("local_cond_dim", "global_cond_dim", "horizon", "n_obs_steps", "obs_as_cond")),
    "policy.noise_scheduler": frozenset(
        {
            *("_target_", "num_train_timesteps", "beta_start", "beta_end", "beta_schedule"),
            # These two count with thresholding=True, which is refused.
            *("clip_sample", "prediction_type", "dynamic_thresholding_ratio", "sample_max_value"),
            *FIXED,
        }
    ),
    "policy.obs_encoder": frozenset(
        {
            *("_target_", "shape_meta", "rgb_model", "resize_shape", "crop_shape", "random_crop"),
            *("use_group_norm", "share_rgb_model", "imagenet_norm"),
        }
    ),
}
# The environment would see later actions, or the policy its own.
NEUTRAL = {"": {"n_latency_steps": (0,), "past_action_visible": (False,)}}
# Of one observation or the action in shape_meta: which of the recorded steps it shows.
SHAPE = frozenset(("shape", "type"))
SHAPE_NEUTRAL = {"latency_steps": (0,), "down_sample_steps": (1,)}


def check(source: str, cfg: Mapping[str, Any]) -> None:
    """Raises a UserError for keys that may change a policy's actions; lists other unknown ones."""
    for section, known in KNOWN.items():
        _check(source, get(cfg, section, {}) if section else cfg, section, known)
    meta = get(cfg, "shape_meta", get(cfg, "policy.shape_meta", {}))
    entries = {"action": get(meta, "action", {})}
    entries |= {f"obs.{key}": x for key, x in dict(get(meta, "obs", {})).items()}
    for name, entry in entries.items():
        if isinstance(entry, Mapping):
            where = f"cfg.shape_meta.{name}"
            unknown.check(source, _said(entry), SHAPE, SHAPE_NEUTRAL, where)


def _check(source: str, entries: Any, section: str, known: frozenset[str]) -> None:
    """Checks one section of the config, if there is one."""
    if isinstance(entries, Mapping):
        where = f"cfg.{section}" if section else "cfg"
        unknown.check(source, _said(entries), known, NEUTRAL.get(section, {}), where)


def _said(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The keys with a value: `config.plain` writes None for objects that it does not know."""
    return {key: value for key, value in entries.items() if value is not None}
