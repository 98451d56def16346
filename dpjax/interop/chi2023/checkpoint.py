"""The original Diffusion Policy's checkpoints (Chi et al. 2023, code) as a `Found`.

cfg                      Hydra's config (`original_config`)
state_dicts.ema_model    model.* · obs_encoder.* · normalizer.params_dict.<key>.*
pickles                  pickles in the pickle: not opened
"""

from collections.abc import Mapping
from pathlib import Path
import re
from typing import Any

import numpy as np

from dpjax.core.errors import UserError
from dpjax.interop import networks, normalization, tensors
from dpjax.interop.chi2023 import config
from dpjax.interop.chi2023.cameras import cameras
from dpjax.interop.chi2023.config import get
from dpjax.interop.imported import Found, check_sizes, refuse, spacing, split_numbers
from dpjax.interop.torch import archive as archive_lib
from dpjax.interop.weight_map import first

# Tensors that are no weights: names, and why each may be left out.
IGNORED = {
    r"(.*\.)?_dummy_variable": "empty",
    r".*\.num_batches_tracked": "a count of batches",
    r"normalizer\.params_dict\..*\.input_stats\.\w+": "what scale and offset were made of",
    r"model\.local_cond_encoder\.1\..*": "a block that the original never reaches",
}
MASKS = ("model.mask", "model.memory_mask")  # buffers: rebuilt, and compared
TORCHVISION = {"conv1.weight", "fc.weight", "layer1.0.conv1.weight"}


def read(path: Path, names: Mapping[str, int] | None, given: Mapping[str, Any]) -> Found:
    """The policy in a checkpoint.

    names: {observation: size} of a low-dim policy's numbers, in their order.
    given: settings that the user gave; they come before the config's.
    """
    source = str(path)
    archive = archive_lib.read(path)
    cfg, state, said = contents(source, archive)
    network, observes = config.kind(source, cfg)
    settings = config.settings(source, cfg, network, observes)
    state, ignored = split_off(state)
    state, rounded = load(archive, state)
    settings.update(guesses(state, network, settings))
    settings.update({key: value for key, value in given.items() if key in settings})
    needed(source, settings)
    check_sizes(source, settings)
    ran, why = config.as_it_ran(settings)
    settings.update({"sampler.diffusers": ran, "sampler.spacing": spacing(settings)})
    norms, state = pick(state, "normalizer.params_dict.")
    state = check_masks(source, state, settings)
    make = lowdim if observes == "lowdim" else cameras
    found = make(source, cfg, settings, state, norms, names)
    said = [*said, *rounded, *why, *found.said]
    if ignored:
        said.append(f"{len(ignored)} tensors are no weights and are left out: {first(ignored)}")
    return found._replace(said=said)


def contents(source: str, archive: archive_lib.Archive) -> tuple[dict, dict, list[str]]:
    """(cfg as plain data, the state dict to use, lines on both)."""
    content, said = archive.content, []
    if not isinstance(content, dict):
        raise refuse(source, "data.pkl", "a dict with cfg and state_dicts", type(content).__name__)
    if TORCHVISION <= set(content):
        raise UserError(
            f"{source}: weights of torchvision's ResNet, an encoder and no policy: save them as "
            ".safetensors or .npz, and train with config.encoder.weights."
        )
    if not isinstance(content.get("state_dicts"), dict):
        keys = first([str(key)[:40] for key in content])
        raise refuse(source, "data.pkl", "the keys cfg and state_dicts", keys)
    if archive.refused:
        said.append(
            f"{len(archive.refused)} names in the pickle were read as data and not called: "
            f"{first([name[:60] for name in archive.refused])}"
        )
    cfg = config.plain(source, content.get("cfg"))
    if not isinstance(cfg, dict):
        raise refuse(source, "cfg", "Hydra's config", type(content.get("cfg")).__name__)
    states = content["state_dicts"]
    which = "ema_model" if get(cfg, "training.use_ema", "ema_model" in states) else "model"
    state = states.get(which)
    if not isinstance(state, dict) or not state:
        names = first(sorted(str(name)[:40] for name in states))
        raise refuse(source, f"state_dicts.{which}", "a state dict", f"only {names}")
    for name, x in state.items():
        if not isinstance(name, str) or not isinstance(x, archive_lib.Tensor):
            raise refuse(source, f"state_dicts.{which}.{name}", "a tensor", type(x).__name__)
    return cfg, state, said


def split_off(state: Mapping) -> tuple[dict, list[str]]:
    """The tensors that count, and the names of those in IGNORED."""
    ignored = [name for name in state if any(re.fullmatch(text, name) for text in IGNORED)]
    return {name: x for name, x in state.items() if name not in set(ignored)}, ignored


def load(archive: archive_lib.Archive, state: Mapping) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays, in float32 but for the masks, which hold infinities."""
    arrays = archive_lib.arrays(archive, state)
    masks = {name: arrays.pop(name) for name in MASKS if name in arrays}
    found, said = tensors.as_float32(str(archive.path), arrays)
    return {**found, **masks}, said


def pick(state: Mapping, prefix: str) -> tuple[dict, dict]:
    """The tensors under a prefix, without it, and the others."""
    inside = {n.removeprefix(prefix): x for n, x in state.items() if n.startswith(prefix)}
    return inside, {n: x for n, x in state.items() if not n.startswith(prefix)}


def guesses(state: Mapping, network: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes that the config leaves out and the tensors have."""
    found = {}
    shape = lambda name: state[name].shape if name in state else ()
    if network == "unet1d":
        block = "model.down_modules.{}.0.blocks.0.block.0.weight"
        widths = [shape(block.format(i)) for i in range(16) if len(shape(block.format(i))) == 3]
        time = shape("model.diffusion_step_encoder.1.weight")
        film = shape("model.down_modules.0.0.cond_encoder.1.weight")
        found["denoiser.groups"] = 8  # the constructor's default
        if widths and len(time) == len(film) == 2:
            found["denoiser.widths"] = [size[0] for size in widths]
            found["denoiser.kernel_size"] = widths[0][2]
            found["denoiser.time_features"] = time[1]
            found["denoiser.film_scale"] = film[0] == 2 * widths[0][0]
    else:
        found["denoiser.causal"] = MASKS[0] in state
        found.update({"denoiser.drop": 0.1, "denoiser.drop_tokens": 0.1})  # in training only
    return {key: value for key, value in found.items() if settings.get(key) is None}


def needed(source: str, settings: dict[str, Any]) -> None:
    """Refuses settings that nobody has said."""
    missing = [key for key, value in settings.items() if value is None]
    if missing:
        options = " ".join(f"--set {key}=…" for key in missing)
        raise UserError(
            f"{source}: cfg does not say {first([f'config.{key}' for key in missing])}: give "
            f"{options}."
        )


def check_masks(source: str, state: dict, settings: Mapping[str, Any]) -> dict:
    """The state without its masks, which are those that are rebuilt here, or it is refused."""
    if settings["denoiser.name"] != "transformer":
        return state
    t = np.arange(settings["horizon.predict"])[:, None]
    memory = np.arange(1 + settings["horizon.obs"] * (settings["condition"] == "features"))
    allowed = dict(zip(MASKS, (t >= t.T, t >= memory - 1)))
    for name in MASKS:
        if name in state:
            want = np.where(allowed[name], 0.0, -np.inf)
            if not np.array_equal(state[name], want):
                shapes = f"{list(want.shape)}", f"another, {list(state[name].shape)}"
                raise refuse(source, name, f"the original's causal mask {shapes[0]}", shapes[1])
    return {name: x for name, x in state.items() if name not in MASKS}


def lowdim(source, cfg, settings, state, norms, names) -> Found:
    """A policy whose observations are numbers: one key, obs, in their normalizer."""
    offset, scale = normalization.of_key(source, norms, "obs")
    action = normalization.of_key(source, norms, "action")
    observations = split_numbers(source, len(scale), names)
    ends = np.cumsum([0, *observations.values()])
    part = {key: (offset[a:b], scale[a:b]) for key, a, b in zip(observations, ends[:-1], ends[1:])}
    normalization.check_keys(source, norms, ("obs", "action"))
    return Found(
        source,
        settings,
        observations,
        len(action[1]),
        state,
        encoder=lambda ours: (),
        denoiser=networks.original(settings["denoiser.name"], None),
        units={**part, "action": action},
        said=[],
    )
