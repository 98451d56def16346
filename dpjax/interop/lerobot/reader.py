"""LeRobot's diffusion policies as a `Found`.

    config.json           sizes, features, sampler
    model.safetensors     diffusion.unet.* · diffusion.rgb_encoder[.<i>].*
    the rest              statistics (`lerobot_stats`)

A step's features are the state, the cameras, then the environment's state; ours are the
numbers, then the cameras. `lerobot_export` writes this layout.
"""

from collections.abc import Mapping
import functools
from pathlib import Path
import re
from typing import Any

import numpy as np

from dpjax.interop import networks, tensors
from dpjax.interop.imported import MAX_SIZE, Found, check_sizes, only, order_of, refuse, spacing
from dpjax.interop.lerobot import stats
from dpjax.interop.lerobot.stats import Features, own_name
from dpjax.interop.weight_map import Piece, Shapes, first

MODEL = "diffusion."
WEIGHTS, CONFIG = "model.safetensors", "config.json"
STATISTICS = r"(normalize_inputs|normalize_targets|unnormalize_outputs)\.buffer_\w+\.\w+"
IGNORED = (r".*\.pos_grid", r".*\.num_batches_tracked")  # the pixels' places; a count
RANKS = {"STATE": 1, "VISUAL": 3, "ENV": 1, "ACTION": 1}  # in the order of a step's numbers
KEYS = {  # of config.json, and of ours
    "n_obs_steps": "horizon.obs",
    "horizon": "horizon.predict",
    "n_action_steps": "horizon.act",
    "down_dims": "denoiser.widths",
    "kernel_size": "denoiser.kernel_size",
    "n_groups": "denoiser.groups",
    "diffusion_step_embed_dim": "denoiser.time_features",
    "use_film_scale_modulation": "denoiser.film_scale",
    "num_train_timesteps": "schedule.num_levels",
}
SCHEDULES = {"squaredcos_cap_v2": "cosine", "linear": "linear", "scaled_linear": "scaled_linear"}
SAMPLERS = {"DDPM": "ddpm", "DDIM": "ddim"}
PREDICTS = {"epsilon": "epsilon", "sample": "sample"}


def read(folder: Path, names: Mapping[str, int] | None, given: Mapping[str, Any]) -> Found:
    """The policy in a folder.

    names: {observation: size} of its numbers, the state's and then the environment's.
    given: settings that the user gave; they come before config.json's.
    """
    written, source = stats.read_json(folder / CONFIG), str(folder / CONFIG)
    only(source, "type", written.get("type"), {"diffusion": None})
    features = features_of(source, written)
    arrays = tensors.read_safetensors(folder / WEIGHTS)
    state, said = tensors.as_float32(str(folder / WEIGHTS), drop_integers(arrays))
    state = {name.replace("._orig_mod", ""): x for name, x in state.items()}
    old = {name: state.pop(name) for name in [*state] if re.fullmatch(STATISTICS, name)}
    read = stats.statistics(folder, written, features, old)
    observations, units, constant = stats.units_of(folder, features, read, names)
    ignored = [name for name in arrays if any(re.fullmatch(text, name) for text in IGNORED)]
    state = {name: x for name, x in state.items() if name not in set(ignored)}
    settings = {**settings_of(source, written, features, state), **given}
    check_sizes(source, settings)
    if ignored:
        said.append(f"{len(ignored)} tensors are no weights and are left out: {first(ignored)}")
    if settings.get("encoder.norm") == "frozen":
        said.append("BatchNorms are folded with their statistics: fine-tuning leaves them fixed")
    shared, cameras = settings["encoder.shared"], sum(of[0] == "VISUAL" for of in features.values())
    return Found(
        str(folder),
        settings,
        observations,
        features["action"][1][0],
        networks.fold_batch_norms(state),
        encoder=functools.partial(encoder_pieces, min(cameras, 1) if shared else cameras, shared),
        denoiser=functools.partial(denoiser_pieces, order(features, settings)),
        units=units,
        said=[*said, *constant],
    )


def drop_integers(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without BatchNorm's counts, the only integers that a policy may hold."""
    return {name: x for name, x in arrays.items() if not name.endswith(".num_batches_tracked")}


def features_of(source: str, written: Mapping) -> Features:
    """{feature: (type, shape)} in the order of a step's numbers."""
    found = {}
    for side in ("input_features", "output_features"):
        given = written.get(side)
        if not isinstance(given, Mapping):
            raise refuse(source, side, "{feature: type and shape}", given)
        for name, feature in given.items():
            kind, shape = (
                feature.get(key) if isinstance(feature, Mapping) else None
                for key in ("type", "shape")
            )
            rank = only(source, f"{side}.{name}.type", kind, RANKS)
            sizes = isinstance(shape, list) and all(
                type(x) is int and 0 < x <= MAX_SIZE for x in shape
            )
            if not sizes or len(shape) != rank or (rank == 3 and shape[0] != 3):
                what = "[3, height, width]" if rank == 3 else "[size]"
                raise refuse(source, f"{side}.{name}.shape", what, shape)
            found[name] = (kind, tuple(shape))
    kinds = [kind for kind, _ in found.values()]
    if "action" not in found or found["action"][0] != "ACTION" or len(found) < 2:
        raise refuse(source, "features", "observations and action", ", ".join(found))
    for kind in ("STATE", "ENV", "ACTION"):
        if kinds.count(kind) > 1:
            raise refuse(source, "features", f"one {kind}", kinds.count(kind))
    place = list(RANKS)
    return dict(sorted(found.items(), key=lambda item: place.index(item[1][0])))


def settings_of(source: str, written, features: Features, state) -> dict[str, Any]:
    """{config key: value}; what dpjax does not have is refused."""
    for key in KEYS:
        if key not in written:
            raise refuse(source, key, "a value", "nothing")
    one_of = lambda key, table: only(source, key, written.get(key), table)
    found = {own: written[key] for key, own in KEYS.items()}
    found["sampler.name"] = one_of("noise_scheduler_type", SAMPLERS)
    found["schedule.name"] = one_of("beta_schedule", SCHEDULES)
    found["predict"] = one_of("prediction_type", PREDICTS)
    if found["schedule.name"] != "cosine":
        one_of("beta_start", {1e-4: None}), one_of("beta_end", {0.02: None})
    found["sampler.clip"] = np.inf
    if written.get("clip_sample", True):
        found["sampler.clip"] = written.get("clip_sample_range", 1.0)
    found["sampler.num_steps"] = written.get("num_inference_steps") or found["schedule.num_levels"]
    found.update({"sampler.spacing": spacing(found), "sampler.diffusers": "current"})
    found.update({"denoiser.name": "unet1d", "condition": "features", "encoder.shared": False})
    found["loss.mask_padding"] = written.get("do_mask_loss_for_padding", False)
    if any(kind == "VISUAL" for kind, _ in features.values()):
        found.update(camera_settings(source, written, features, state))
    return found


def camera_settings(source: str, written, features: Features, state) -> dict[str, Any]:
    """The keys of config.encoder and config.cameras."""
    if written.get("resize_shape") is not None:
        raise refuse(
            source, "resize_shape", "none: dpjax resizes otherwise", written["resize_shape"]
        )
    depth = only(
        source, "vision_backbone", written.get("vision_backbone"), {"resnet18": 18, "resnet34": 34}
    )
    keypoints, crop = (
        written.get("spatial_softmax_num_keypoints", 32),
        written.get("crop_shape") or [],
    )
    if type(keypoints) is not int or keypoints < 1:
        raise refuse(source, "spatial_softmax_num_keypoints", "a number above 0", keypoints)
    if not isinstance(crop, list) or len(crop) not in (0, 2):
        raise refuse(source, "crop_shape", "[height, width] or null", crop)
    stem = [x.shape[0] for name, x in state.items() if name.endswith("backbone.0.weight")]
    group = written.get("use_group_norm", True)
    has = any(name.endswith(".running_mean") for name in state)
    if not isinstance(group, bool) or group == has:
        what = "BatchNorm's statistics" if has else "none of BatchNorm's statistics"
        raise refuse(source, "use_group_norm", f"{not has}, for there are {what}", group)
    return {
        "encoder.depth": depth,
        "encoder.width": stem[0] if stem else 64,
        "encoder.pool": "spatial_softmax",
        "encoder.keypoints": keypoints,
        "encoder.features": 2 * keypoints,
        "encoder.shared": not written.get("use_separate_rgb_encoder_per_camera", False),
        "encoder.norm": "group" if group else "frozen",
        "cameras": {
            own_name(name): {"size": shape[1:], "resize": (), "crop": tuple(crop)}
            for name, (kind, shape) in features.items()
            if kind == "VISUAL"
        },
    }


def order(features: Features, settings: Mapping[str, Any]) -> np.ndarray:
    """Where each number of our features is among theirs, the observed steps in a row."""
    theirs = {
        name: settings["encoder.features"] if kind == "VISUAL" else shape[0]
        for name, (kind, shape) in features.items()
        if kind != "ACTION"
    }
    ours = sorted(theirs, key=lambda name: features[name][0] == "VISUAL")  # stable
    return order_of(theirs, ours, settings["horizon.obs"])


def encoder_pieces(count: int, shared: bool, ours: Shapes) -> tuple[Piece, ...]:
    """Of `count` encoders; a shared one has no number."""
    found = []
    for i in range(count):
        path, name = (f"encoders_{i}",), f"{MODEL}rgb_encoder" + ("" if shared else f".{i}")
        body = (*path, "backbone")
        found += networks.resnet(ours, body, f"{name}.backbone", networks.NUMBERED)
        found += networks.points(path, f"{name}.pool.nets", f"{name}.out")
    return tuple(found)


def denoiser_pieces(order: np.ndarray, ours: Shapes) -> tuple[Piece, ...]:
    return networks.unet(ours, networks.LEROBOT, f"{MODEL}unet.", order)
