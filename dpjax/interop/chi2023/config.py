"""Reads the config of a checkpoint of Chi et al.'s code, as settings of `ImportedPolicy`.

The config is Hydra's, pickled with the checkpoint. OmegaConf is not needed: each of its objects
is replaced by its attribute `_content` or `_val`. An interpolation ("${…}") that was never
resolved counts as missing.
"""

from collections.abc import Mapping
import itertools
import logging
from typing import Any

from dpjax.core.errors import UserError
from dpjax.interop.imported import Settings, choose, refuse
from dpjax.interop.torch import machine

# Far more than any published config has; a hostile one could contain itself.
MAX_VALUES = 200_000
MAX_LEVELS = 60
MISSING = "???"  # OmegaConf's marker of a missing value

POLICIES = {  # {last part of policy._target_: (network, kind of observations)}
    "DiffusionUnetLowdimPolicy": ("unet1d", "lowdim"),
    "DiffusionUnetHybridImagePolicy": ("unet1d", "hybrid"),
    "DiffusionUnetImagePolicy": ("unet1d", "multi"),
    "DiffusionTransformerLowdimPolicy": ("transformer", "lowdim"),
    "DiffusionTransformerHybridImagePolicy": ("transformer", "hybrid"),
}
# {diffusers' name: ours} of the scheduler class, beta_schedule and prediction_type.
SAMPLERS = {"DDPMScheduler": "ddpm", "DDIMScheduler": "ddim"}
SCHEDULES = {
    "squaredcos_cap_v2": "cosine",
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "sigmoid": "sigmoid",
}
PREDICTION_TYPES = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}
# {argument of diffusers' scheduler: the only value that dpjax has for it}.
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
# {argument of their network's constructor: our setting}.
UNET = {
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
# {argument of their policy: our setting}, and {flag of their policy: our condition}.
HORIZON = {"n_obs_steps": "obs", "horizon": "predict", "n_action_steps": "act"}
CONDITIONS = {
    "obs_as_global_cond": "features",
    "obs_as_local_cond": "local",
    "obs_as_cond": "features",
}

log = logging.getLogger("dpjax")


def plain(source: str, x: Any) -> Any:
    """The config as dicts, lists and values; objects that are not OmegaConf's become None.

    Raises UserError for a config of more than MAX_VALUES values or MAX_LEVELS levels.
    """
    count = itertools.count()

    def read(x, depth):
        # A pickle may have lists that contain each other, which would never end.
        if next(count) > MAX_VALUES or depth > MAX_LEVELS:
            raise UserError(f"{source}: cfg: more than {MAX_VALUES} values or {MAX_LEVELS} levels.")
        # An OmegaConf container has _content, a single value _val.
        if isinstance(x, machine.InertCall):
            state = x.state if isinstance(x.state, dict) else {}
            content = [state[key] for key in ("_content", "_val") if key in state]
            return read(content[0], depth + 1) if content else None
        if isinstance(x, dict):
            return {key: read(value, depth + 1) for key, value in x.items()}
        if isinstance(x, (list, tuple)):
            return [read(value, depth + 1) for value in x]
        is_value = isinstance(x, (str, int, float, bool)) and not _is_unresolved(x)
        return x if is_value else None

    return read(x, 0)


def _is_unresolved(x: Any) -> bool:
    return isinstance(x, str) and (x == MISSING or "${" in x)


def get(tree: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path of nested dicts, or the default where there is none."""
    for key in path.split("."):
        # None counts as absent, because `plain` writes it for unknown objects.
        if not isinstance(tree, Mapping) or tree.get(key) is None:
            return default
        tree = tree[key]
    return tree


def policy_class(source: str, cfg: Mapping) -> tuple[str, str]:
    """(network, kind of observations) of the policy class that the config names."""
    # A full path such as diffusion_policy.policy.….DiffusionUnetImagePolicy.
    target = get(cfg, "policy._target_")
    if target is None:
        raise refuse(source, "cfg.policy._target_", "the name of the policy's class", "nothing")
    return choose(source, "cfg.policy._target_", str(target).split(".")[-1], POLICIES)


def settings_from(source: str, cfg: Mapping, network: str, observes: str) -> Settings:
    """The settings in the config; None for each one that it lacks."""
    policy = get(cfg, "policy", {})
    # The network. Low-dim policies have its arguments in the section policy.model.
    arguments = get(policy, "model", {}) if observes == "lowdim" else policy
    names = UNET if network == "unet1d" else TRANSFORMER
    denoiser = {"name": network}
    denoiser.update({setting: get(arguments, name) for name, setting in names.items()})
    condition = condition_of(source, policy, observes)
    if network == "transformer":
        denoiser["encoder_only"] = encoder_only(source, arguments, condition)
    # Conventions on which steps are predicted and executed: the published ones only.
    for key, allowed in (("oa_step_convention", True), ("pred_action_steps_only", False)):
        if (value := get(policy, key)) is not None:
            choose(source, f"cfg.policy.{key}", value, {allowed: allowed})
    # The horizon is in the policy's section in some versions and beside it in others.
    horizon = {setting: get(policy, name, get(cfg, name)) for name, setting in HORIZON.items()}
    schedule, sampler, prediction_type = scheduler_from(source, policy)
    return {
        "denoiser": denoiser,
        "horizon": horizon,
        "policy": {"condition": condition, "prediction_type": prediction_type},
        "schedule": schedule,
        "sampler": sampler,
    }


def condition_of(source: str, policy: Mapping, observes: str) -> str:
    """How the denoiser is conditioned on observations: "features", "local" or "inpaint"."""
    # The flags that are True, and those that the config has at all.
    chosen = [condition for key, condition in CONDITIONS.items() if get(policy, key) is True]
    keys = [key for key in CONDITIONS if get(policy, key) is not None]
    # Cameras can only condition as features; any other flag raises an error.
    if observes != "lowdim" and (chosen or ["features"]) != ["features"]:
        raise refuse(source, "cfg.policy", "one kind of conditioning", chosen)
    if not chosen and observes != "lowdim" and keys:
        key = f"cfg.policy.{keys[0]}"
        raise refuse(source, key, "True: images can't be denoised here", False)
    if chosen:
        return chosen[0]
    # If all flags are False, the observations are denoised together with the actions.
    return "inpaint" if keys and observes == "lowdim" else "features"


def encoder_only(source: str, arguments: Mapping, condition: str) -> bool:
    """Whether the transformer is an encoder alone, without a memory to attend to."""
    # Then the time is one of its tokens. Observations would need a memory, so only inpainting
    # policies can be of this kind.
    if get(arguments, "time_as_cond", True):
        return False
    if condition != "inpaint":
        raise refuse(source, "time_as_cond", "True where the observations are conditions", "False")
    return True


def scheduler_from(source: str, policy: Mapping) -> tuple[dict, dict, str | None]:
    """(settings of the schedule, settings of the sampler, prediction type)."""
    scheduler = get(policy, "noise_scheduler", {})
    where = "cfg.policy.noise_scheduler"
    # Options that dpjax has one value for. It is diffusers' default, so a key may be absent.
    for key, allowed in FIXED.items():
        if (value := get(scheduler, key)) is not None:
            choose(source, f"{where}.{key}", value, dict.fromkeys(allowed))
    beta_schedule = get(scheduler, "beta_schedule")
    name = choose(source, f"{where}.beta_schedule", beta_schedule, {**SCHEDULES, None: None})
    if name != "cosine":  # diffusers ignores both for the cosine schedule
        for key, beta in (("beta_start", 1e-4), ("beta_end", 0.02)):
            choose(source, f"{where}.{key}", get(scheduler, key, beta), {beta: beta})

    # None for what the config lacks; the error then lists the options that supply it.
    levels = get(scheduler, "num_train_timesteps")
    predicted = get(scheduler, "prediction_type")
    target = str(get(scheduler, "_target_", "DDPMScheduler")).split(".")[-1]
    clip = get(scheduler, "clip_sample", True)
    prediction_types = {**PREDICTION_TYPES, None: None}
    schedule = {"name": name, "num_levels": levels}
    # The scheduler's class names the sampler, which visits all levels by default.
    sampler = {
        "name": choose(source, f"{where}._target_", target, SAMPLERS),
        "num_steps": get(policy, "num_inference_steps", levels),
        "clip": choose(source, f"{where}.clip_sample", clip, {True: 1.0, False: float("inf")}),
    }
    return (
        schedule,
        sampler,
        choose(source, f"{where}.prediction_type", predicted, prediction_types),
    )


def diffusers_version(settings: Settings) -> str:
    """The version of diffusers whose sampling steps reproduce the policy's actions.

    Chi et al.'s code ran on diffusers 0.11. Its steps differ from today's in two cases: DDPM
    with fewer sampling steps than noise levels, and DDIM with predictions of x_0. In these
    cases a warning is logged.
    """
    sampler = settings["sampler"]
    differs = {
        "ddpm": sampler["num_steps"] != settings["schedule"]["num_levels"],
        "ddim": settings["policy"]["prediction_type"] == "sample",
    }
    # All other samplers, which only the user can choose, are the same in every version.
    if not differs.get(sampler["name"], False):
        return "current"
    log.warning(
        "sampler.diffusers='0.11': the policy ran on diffusers 0.11, whose sampling steps differ "
        "from today's; sampler.diffusers='current' takes those of today"
    )
    return "0.11"
