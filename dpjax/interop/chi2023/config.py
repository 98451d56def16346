"""The original's config (Hydra's, pickled with the checkpoint) as dpjax's keys.

OmegaConf's objects are read as what they hold, `_content` and `_val`, without OmegaConf. A
value that is still an interpolation was never resolved and counts as missing.
"""

from collections.abc import Mapping
import itertools
from typing import Any

from dpjax.core.errors import UserError
from dpjax.interop.imported import only, refuse
from dpjax.interop.torch import unpickler

INF = float("inf")
MAX_NODES, MAX_DEPTH = 200_000, 60
MISSING = "???"  # OmegaConf's own word for it

POLICIES = {  # the last part of policy._target_: network, kind of observations
    "DiffusionUnetLowdimPolicy": ("unet1d", "lowdim"),
    "DiffusionUnetHybridImagePolicy": ("unet1d", "hybrid"),
    "DiffusionUnetImagePolicy": ("unet1d", "multi"),
    "DiffusionTransformerLowdimPolicy": ("transformer", "lowdim"),
    "DiffusionTransformerHybridImagePolicy": ("transformer", "hybrid"),
}
SAMPLERS = {"DDPMScheduler": "ddpm", "DDIMScheduler": "ddim"}
SCHEDULES = {
    "squaredcos_cap_v2": "cosine",
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "sigmoid": "sigmoid",
}
PREDICTS = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}
# Keys of a scheduler that must be what dpjax does, and that.
FIXED = {
    "variance_type": ("fixed_small",),
    "set_alpha_to_one": (True,),
    "steps_offset": (0,),
    "thresholding": (False,),
    "clip_sample_range": (1.0,),
    "trained_betas": (None,),
    "timestep_spacing": ("leading",),
    "rescale_betas_zero_snr": (False,),
}
UNET = {  # constructor's argument: config key; None where only tensors tell
    "down_dims": "widths",
    "kernel_size": "kernel_size",
    "n_groups": "groups",
    "diffusion_step_embed_dim": "time_features",
    "cond_predict_scale": "film_scale",
}
TRANSFORMER = {
    "n_layer": "layers",
    "n_head": "heads",
    "n_emb": "width",
    "n_cond_layers": "cond_layers",
    "causal_attn": "causal",
    "p_drop_attn": "drop",
    "p_drop_emb": "drop_tokens",
}
HORIZON = {"n_obs_steps": "obs", "horizon": "predict", "n_action_steps": "act"}


def plain(source: str, x: Any) -> Any:
    """OmegaConf's objects as dicts, lists and values; None for what is none of these."""
    nodes = itertools.count()

    def read(x, depth):
        if next(nodes) > MAX_NODES or depth > MAX_DEPTH:
            raise UserError(f"{source}: cfg: more than {MAX_NODES} values or {MAX_DEPTH} levels.")
        if isinstance(x, unpickler.Made):
            state = x.state if isinstance(x.state, dict) else {}
            inner = [state[key] for key in ("_content", "_val") if key in state]
            return read(inner[0], depth + 1) if inner else None
        if isinstance(x, dict):
            return {key: read(value, depth + 1) for key, value in x.items()}
        if isinstance(x, (list, tuple)):
            return [read(value, depth + 1) for value in x]
        known = isinstance(x, (str, int, float, bool)) and not _unresolved(x)
        return x if known else None

    return read(x, 0)


def _unresolved(x) -> bool:
    return isinstance(x, str) and (x == MISSING or "${" in x)


def get(tree: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path of nested dicts, or the default where there is none."""
    for key in path.split("."):
        if not isinstance(tree, Mapping) or tree.get(key) is None:
            return default
        tree = tree[key]
    return tree


def kind(source: str, cfg: Mapping) -> tuple[str, str]:
    """(denoiser.name, kind of observations) of the policy that the config names."""
    target = get(cfg, "policy._target_")
    if target is None:
        raise refuse(source, "cfg.policy._target_", "the name of the policy's class", "nothing")
    return only(source, "cfg.policy._target_", str(target).split(".")[-1], POLICIES)


def settings(source: str, cfg: Mapping, network: str, observes: str) -> dict[str, Any]:
    """{config key: value}, None where cfg does not say it."""
    policy = get(cfg, "policy", {})
    inside = get(policy, "model", {}) if observes == "lowdim" else policy
    found = {"denoiser.name": network}
    names = UNET if network == "unet1d" else TRANSFORMER
    found.update({f"denoiser.{own}": get(inside, name) for name, own in names.items()})
    for name, own in HORIZON.items():
        found[f"horizon.{own}"] = get(policy, name, get(cfg, name))
    found["condition"] = condition(source, policy, network, observes)
    if network == "transformer":
        found["denoiser.encoder_only"] = encoder_only(source, policy, inside, found["condition"])
    for key, allowed in (("oa_step_convention", True), ("pred_action_steps_only", False)):
        if (given := get(policy, key)) is not None:
            only(source, f"cfg.policy.{key}", given, {allowed: allowed})
    return {**found, **scheduler(source, policy)}


def condition(source: str, policy: Mapping, network: str, observes: str) -> str:
    """config.condition."""
    keys = {
        "obs_as_global_cond": "features",
        "obs_as_local_cond": "local",
        "obs_as_cond": "features",
    }
    found = [own for key, own in keys.items() if get(policy, key) is True]
    if observes != "lowdim" and (found or ["features"]) != ["features"]:
        raise refuse(source, "cfg.policy", "one way of conditioning", found)
    given = [key for key in keys if get(policy, key) is not None]
    if not found and observes != "lowdim" and given:
        key = given[0]
        raise refuse(source, f"cfg.policy.{key}", "True: images can't be denoised here", False)
    default = "inpaint" if given and observes == "lowdim" else "features"
    return found[0] if found else default


def encoder_only(source: str, policy: Mapping, inside: Mapping, condition: str) -> bool:
    """Whether it is the encoder alone: neither time nor observations are a memory's tokens."""
    if get(inside, "time_as_cond", True):
        return False
    if condition != "inpaint":
        raise refuse(source, "time_as_cond", "True where the observations are conditions", "False")
    return True


def scheduler(source: str, policy: Mapping) -> dict[str, Any]:
    """Schedule, prediction and sampler."""
    given, where = get(policy, "noise_scheduler", {}), "cfg.policy.noise_scheduler"
    target = str(get(given, "_target_", "DDPMScheduler")).split(".")[-1]
    for key, allowed in FIXED.items():
        if (value := get(given, key)) is not None:
            only(source, f"{where}.{key}", value, dict.fromkeys(allowed))
    levels = get(given, "num_train_timesteps")
    name = only(
        source, f"{where}.beta_schedule", get(given, "beta_schedule"), {**SCHEDULES, None: None}
    )
    if name != "cosine":
        for key, own in (("beta_start", 1e-4), ("beta_end", 0.02)):
            only(source, f"{where}.{key}", get(given, key, own), {own: own})
    predict = get(given, "prediction_type")
    clip = get(given, "clip_sample", True)
    return {
        "schedule.name": name,
        "schedule.num_levels": levels,
        "predict": only(source, f"{where}.prediction_type", predict, {**PREDICTS, None: None}),
        "sampler.name": only(source, f"{where}._target_", target, SAMPLERS),
        "sampler.num_steps": get(policy, "num_inference_steps", levels),
        "sampler.clip": only(source, f"{where}.clip_sample", clip, {True: 1.0, False: INF}),
    }


def as_it_ran(settings: Mapping[str, Any]) -> tuple[str, list[str]]:
    """config.sampler.diffusers for these settings, and a line where it is not the current.

    The original ran on diffusers 0.11, which differs where it takes fewer steps than there
    are levels, or walks DDIM on predictions of x_0.
    """
    fewer = settings["sampler.num_steps"] != settings["schedule.num_levels"]
    of_x0 = settings["predict"] == "sample"
    differs = {"ddpm": fewer, "ddim": of_x0}[settings["sampler.name"]]
    if not differs:
        return "current", []
    return "0.11", [
        "config.sampler.diffusers='0.11': the steps of the diffusers that it ran on, which differ "
        "from today's; --set sampler.diffusers=current for those"
    ]
