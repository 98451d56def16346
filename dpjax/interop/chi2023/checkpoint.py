"""Reads checkpoints of Chi et al.'s code (real-stanford/diffusion_policy) as an `ImportedPolicy`.

cfg                      Hydra's config, see `config`
state_dicts.ema_model    model.* · obs_encoder.* · normalizer.params_dict.<key>.*
pickles                  pickles inside the pickle: not opened
"""

from collections.abc import Mapping
import logging
from pathlib import Path
import re

import numpy as np

from dpjax.core.errors import UserError
from dpjax.interop import networks, normalization
from dpjax.interop.chi2023 import config as config_lib
from dpjax.interop.chi2023 import unknown_keys
from dpjax.interop.chi2023.cameras import image_policy
from dpjax.interop.chi2023.config import get
from dpjax.interop.imported import (
    ImportedPolicy,
    SettingError,
    Settings,
    check_sizes,
    missing_settings,
    name_of,
    override,
    refuse,
    sampler_spacing,
    split_numbers,
    split_units,
)
from dpjax.interop.torch import archive as archive_lib
from dpjax.interop.weight_map import Tensors, as_float32, first_names

# Names of tensors that are not weights, as patterns, and what these tensors are instead.
IGNORED = {
    r"(.*\.)?_dummy_variable": "empty",
    r".*\.num_batches_tracked": "a count of batches",
    r"normalizer\.params_dict\..*\.input_stats\.\w+": "the statistics behind scale and offset",
    r"model\.local_cond_encoder\.1\..*": "a block that their network never calls",
}
MASKS = ("model.mask", "model.memory_mask")  # buffers; compared with masks built here
# Names by which the weights of torchvision's ResNet are recognized.
TORCHVISION = {"conv1.weight", "fc.weight", "layer1.0.conv1.weight"}
MAX_LEVELS = 16  # the largest number of U-Net levels whose tensors are looked for

log = logging.getLogger("dpjax")


def read(
    path: Path,
    observations: Mapping[str, int] | None = None,
    overrides: Settings | None = None,
) -> ImportedPolicy:
    """The policy in a checkpoint; raises UserError, in one line, for any other file.

    observations: {name: size} of the numbers that the policy observes, in the file's order.
    overrides: the user's settings, which replace the file's and add those that it lacks.
    """
    source = str(path)
    # The config, which decides how the tensors are read.
    archive = archive_lib.read(path)
    cfg, state = contents(source, archive)
    network, observes = config_lib.policy_class(source, cfg)
    unknown_keys.check(source, cfg)
    settings = config_lib.settings_from(source, cfg, network, observes)

    # The tensors, whose shapes supply settings that the config lacks.
    state = without_ignored(state)
    tensors = load(archive, state)
    settings["denoiser"] = complete(settings["denoiser"], tensors)
    settings = override(settings, overrides or {})
    check_complete(source, settings)
    check_sizes(source, settings)

    # These two are derived from other settings, and so after the user's overrides.
    sampler = settings["sampler"]
    sampler["diffusers"] = config_lib.diffusers_version(settings)
    levels = settings["schedule"]["num_levels"]
    sampler["spacing"] = sampler_spacing(levels, sampler["num_steps"])

    # Without normalizer and masks, all tensors left are weights of the two networks.
    normalizer, tensors = split_prefix(tensors, "normalizer.params_dict.")
    tensors = without_masks(source, tensors, settings)
    # The policy observes numbers only, or cameras and numbers.
    build = lowdim_policy if observes == "lowdim" else image_policy
    return build(source, cfg, settings, tensors, normalizer, observations)


def contents(source: str, archive: archive_lib.Archive) -> tuple[dict, dict]:
    """(the config as plain data, the state dict with the weights used for inference)."""
    content = archive.content
    if not isinstance(content, dict):
        raise refuse(source, "data.pkl", "a dict with cfg and state_dicts", type(content).__name__)
    # A common mistake: a ResNet's weights in the place of a policy.
    if TORCHVISION <= set(content):
        raise UserError(
            f"{source}: weights of torchvision's ResNet, an encoder without a policy: save them "
            "as .safetensors or .npz, and train with them.",
            argument="encoder_weights",
        )
    states = content.get("state_dicts")
    if not isinstance(states, dict):
        keys = first_names([str(key)[:40] for key in content])
        raise refuse(source, "data.pkl", "the keys cfg and state_dicts", keys)
    # A checkpoint may pickle any class. A warning lists those that were not called.
    if archive.unknown:
        names = first_names([name[:60] for name in archive.unknown])
        log.warning(
            "%d names in the pickle were read as data and not called: %s",
            len(archive.unknown),
            names,
        )
    # The averaged weights if the config uses them, and by default if the file has them.
    cfg = config_lib.plain(source, content.get("cfg"))
    if not isinstance(cfg, dict):
        raise refuse(source, "cfg", "Hydra's config", type(content.get("cfg")).__name__)
    which = "ema_model" if get(cfg, "training.use_ema", "ema_model" in states) else "model"
    return cfg, state_dict(source, states, which)


def state_dict(source: str, states: Mapping, which: str) -> dict[str, archive_lib.Tensor]:
    """One of the checkpoint's state dicts, checked to hold tensors only."""
    state = states.get(which)
    if not isinstance(state, dict) or not state:
        names = first_names(sorted(str(name)[:40] for name in states))
        raise refuse(source, f"state_dicts.{which}", "a state dict", f"only {names}")
    # A hostile pickle may hold any value where a name or a tensor should be.
    for name, x in state.items():
        if not isinstance(name, str) or not isinstance(x, archive_lib.Tensor):
            raise refuse(source, f"state_dicts.{which}.{name}", "a tensor", type(x).__name__)
    return state


def without_ignored(state: Mapping[str, archive_lib.Tensor]) -> dict[str, archive_lib.Tensor]:
    """The state dict without the tensors in IGNORED, which a warning names."""
    ignored = [name for name in state if any(re.fullmatch(text, name) for text in IGNORED)]
    if ignored:
        log.warning(
            "%d tensors are not weights and are left out: %s", len(ignored), first_names(ignored)
        )
    return {name: x for name, x in state.items() if name not in set(ignored)}


def load(
    archive: archive_lib.Archive, state: Mapping[str, archive_lib.Tensor]
) -> dict[str, np.ndarray]:
    """The tensors as float32 arrays."""
    arrays = archive_lib.arrays(archive, state)
    # Masks contain infinities, which `as_float32` would refuse.
    masks = {name: arrays.pop(name) for name in MASKS if name in arrays}
    return {**as_float32(str(archive.path), arrays), **masks}


def split_prefix(tensors: Mapping, prefix: str) -> tuple[dict, dict]:
    """(the tensors whose names have the prefix, with it removed; all other tensors)."""
    inside = {n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}
    return inside, {n: x for n, x in tensors.items() if not n.startswith(prefix)}


def complete(denoiser: Mapping, tensors: Mapping[str, np.ndarray]) -> dict:
    """The denoiser's settings, with those that the config lacks derived from the tensors."""
    derived = {}
    shape = lambda name: tensors[name].shape if name in tensors else ()
    if denoiser["name"] == "unet1d":
        kernel = "model.down_modules.{}.0.blocks.0.block.0.weight"  # [out, in, k]
        kernels = [shape(kernel.format(i)) for i in range(MAX_LEVELS)]
        kernels = [size for size in kernels if len(size) == 3]
        # Shapes of the time embedding's first layer and of one block's FiLM layer: [out, in].
        time = shape("model.diffusion_step_encoder.1.weight")
        film = shape("model.down_modules.0.0.cond_encoder.1.weight")
        derived["groups"] = 8  # the default of their constructor; no tensor shows it
        if kernels and len(time) == len(film) == 2:
            derived["widths"] = [size[0] for size in kernels]
            derived["kernel_size"] = kernels[0][2]
            derived["time_features"] = time[1]
            derived["film_scale"] = film[0] == 2 * kernels[0][0]  # a scale beside the bias
    else:
        derived["causal"] = MASKS[0] in tensors
        # Dropout leaves no trace in the tensors; these are the defaults of their constructor.
        derived["drop"] = 0.1
        derived["drop_tokens"] = 0.1
    # A value in the config takes precedence.
    unsaid = {name: x for name, x in derived.items() if denoiser.get(name) is None}
    return {**denoiser, **unsaid}


def check_complete(source: str, settings: Settings) -> None:
    """Raises SettingError if a setting is neither in the checkpoint nor among the overrides."""
    if missing := missing_settings(settings):
        names = first_names([name_of(*setting) for setting in missing])
        raise SettingError(f"{source}: cfg does not say {names}.", missing)


def without_masks(source: str, tensors: dict, settings: Settings) -> dict:
    """The tensors without a transformer's masks; refuses masks other than those used here."""
    if settings["denoiser"]["name"] != "transformer":
        return tensors
    # The number of observed steps in the memory; inpainting has none there.
    observed = settings["horizon"]["obs"] * (settings["policy"]["condition"] == "features")
    t = np.arange(settings["horizon"]["predict"])[:, None]
    memory = np.arange(1 + observed)  # the time, then the observed steps
    # The action at step t attends to actions up to t, to the time, and to observations up to t.
    allowed = dict(zip(MASKS, (t >= t.T, t >= memory - 1)))
    for name in MASKS:
        if name in tensors:
            # torch adds the mask to the attention scores: 0 keeps one, -∞ removes it.
            expected = np.where(allowed[name], 0.0, -np.inf)
            if not np.array_equal(tensors[name], expected):
                causal = f"their causal mask {list(expected.shape)}"
                other = f"another, {list(tensors[name].shape)}"
                raise refuse(source, name, causal, other)
    return {name: x for name, x in tensors.items() if name not in MASKS}


def lowdim_policy(
    source: str,
    cfg: Mapping,
    settings: Settings,
    tensors: Tensors,
    normalizer: Tensors,
    observations: Mapping[str, int] | None,
) -> ImportedPolicy:
    """A policy that observes only numbers, as one vector with the normalizer key "obs"."""
    del cfg  # unused: the signature is that of `image_policy`
    # The user may divide the vector into several observations.
    offset, scale = normalization.from_chi2023(source, normalizer, "obs")
    action = normalization.from_chi2023(source, normalizer, "action")
    normalization.check_keys(source, normalizer, ("obs", "action"))
    sizes = split_numbers(source, len(scale), observations)
    return ImportedPolicy(
        source=source,
        settings=settings,
        observations=dict(sizes),
        action_size=len(action[1]),
        tensors=tensors,
        encoder=lambda shapes: (),  # the observations reach the denoiser as they are
        denoiser=networks.chi2023_denoiser(settings["denoiser"]["name"], None),
        units={**split_units(offset, scale, sizes), "action": action},
    )
