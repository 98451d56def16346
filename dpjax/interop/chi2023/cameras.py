"""The original's image encoders as ours.

    hybrid   robomimic's ResNet, spatial softmax and linear layer; the features of a step in
             the order of shape_meta
    multi    torchvision's ResNet and average pooling, 8 widths a camera: ours with a last
             layer that is the identity (they are not negative, so its ReLU changes nothing)

Ours has the numbers first, then the cameras; `order_of` tells the rows of what reads them.
"""

from collections.abc import Mapping
import functools
from typing import Any

import numpy as np

from dpjax.core.normalizer import IMAGE_MODES
from dpjax.interop import networks, normalization
from dpjax.interop.chi2023.config import get
from dpjax.interop.imported import Found, Units, check_sizes, only, order_of, refuse
from dpjax.interop.weight_map import Piece, Shapes

IDENTITY, ZEROS = "(identity)", "(zeros)"  # arrays that are in no file
BUFFERS = ("pool.pos_x", "pool.pos_y")  # the pixels' places: rebuilt here


def cameras(source, cfg, settings, state, norms, names) -> Found:
    """A policy that sees images."""
    meta = get(cfg, "shape_meta.obs", get(cfg, "policy.shape_meta.obs", {}))
    action = get(cfg, "shape_meta.action.shape", get(cfg, "policy.shape_meta.action.shape"))
    if not meta or not isinstance(action, list) or len(action) != 1:
        raise refuse(source, "cfg.shape_meta", "obs and the action's shape", meta or "nothing")
    rgb = {key: x["shape"] for key, x in meta.items() if get(x, "type", "low_dim") == "rgb"}
    low = {key: x["shape"][0] for key, x in meta.items() if key not in rgb}
    own = renamed(source, low, names)
    multi = any(name.startswith("obs_encoder.key_model_map.") for name in state)
    settings = {**settings, **encoder_settings(source, cfg, rgb, state, multi)}
    check_sizes(source, settings)
    size = settings["encoder.features"]
    theirs = {key: size if key in rgb else low[key] for key in meta}
    if multi:
        theirs = {key: theirs[key] for key in (*sorted(rgb), *sorted(low))}
    steps = settings["horizon.obs"] if settings["denoiser.name"] == "unet1d" else 1
    units_found = units_of(source, cfg, norms, low, rgb)
    state, table = (multi_image if multi else hybrid)(source, state, list(rgb), settings)
    sizes = {key: (shape[1], shape[2], shape[0]) for key, shape in rgb.items()}
    normalization.check_keys(source, norms, (*meta, "action"))
    return Found(
        source,
        settings,
        {**{own[key]: size for key, size in low.items()}, **sizes},
        action[0],
        networks.fold_batch_norms(state),
        encoder=table,
        denoiser=networks.original(
            settings["denoiser.name"], order_of(theirs, [*low, *rgb], steps)
        ),
        units={own.get(key, key): x for key, x in units_found.items()},
        said=said_of(cfg, settings, multi),
    )


def renamed(source: str, low: Mapping[str, int], names: Mapping[str, int] | None) -> dict:
    """{their key: ours} of the numbers; names: {ours: size}, in the order of theirs."""
    if names and list(names.values()) != list(low.values()):
        given = ",".join(f"{key}={size}" for key, size in names.items())
        expected = ",".join(f"{key}={size}" for key, size in low.items())
        raise refuse(source, "--observations", f"a name for each of {expected}", given)
    return dict(zip(low, names or low))


def encoder_settings(source: str, cfg, rgb, state, multi: bool) -> dict[str, Any]:
    """The keys of config.encoder and config.cameras."""
    where = "cfg.policy.obs_encoder" if multi else "cfg.policy"
    given = get(cfg, where.removeprefix("cfg."), {})
    for key, shape in rgb.items():
        if not isinstance(shape, list) or len(shape) != 3 or shape[0] != 3:
            raise refuse(source, f"cfg.shape_meta.obs.{key}.shape", "[3, height, width]", shape)
    if get(given, "resize_shape") is not None:
        only(source, f"{where}.resize_shape", str(given["resize_shape"]), {None: None})
    if not multi and get(given, "crop_shape"):
        only(source, f"{where}.eval_fixed_crop", get(given, "eval_fixed_crop", False), {True: 0})
    blocks = {name.split(".layer3.")[-1].split(".")[0] for name in state if ".layer3." in name}
    blocks |= {name.split(".nets.6.")[-1].split(".")[0] for name in state if ".nets.6." in name}
    crops = {key: crop_of(source, given, key, where, multi) for key in rgb}
    stems = ("nets.0.weight", ".conv1.weight")
    stem = [x.shape[0] for name, x in state.items() if name.endswith(stems)]
    width = stem[0] if stem else 64
    return {
        "encoder.depth": 34 if len(blocks) > 2 else 18,
        "encoder.width": width,
        "encoder.pool": "average" if multi else "spatial_softmax",
        "encoder.features": 8 * width if multi else 64,
        "encoder.keypoints": 32,
        "encoder.shared": bool(multi and get(given, "share_rgb_model", False)),
        "encoder.norm": "frozen" if any("running_mean" in name for name in state) else "group",
        "cameras": {
            key: {"size": tuple(shape[1:]), "resize": (), "crop": crops[key]}
            for key, shape in rgb.items()
        },
    }


def crop_of(source: str, given: Mapping, key: str, where: str, multi: bool) -> tuple[int, ...]:
    """What a camera's network sees, () for all: without random_crop the original crops nothing."""
    crop = get(given, "crop_shape")
    crop = crop.get(key) if isinstance(crop, dict) else crop
    if crop is None or (multi and not get(given, "random_crop", True)):
        return ()
    if not isinstance(crop, list) or len(crop) != 2:
        raise refuse(source, f"{where}.crop_shape", "[height, width]", crop)
    return tuple(crop)


def hybrid(source: str, state: dict, keys: list[str], settings: Mapping):
    """(state without buffers and second names, our leaves -> pieces) of robomimic's encoders."""
    state = dict(state)
    for key in keys:
        name = f"obs_encoder.obs_nets.{key}."
        heat = state.pop(f"{name}pool.temperature", np.ones(1))
        if not np.all(heat == 1):
            raise refuse(source, f"{name}pool.temperature", "1", heat)
        for buffer in BUFFERS:
            state.pop(name + buffer, None)
        for alias, real in (("nets.0.", "backbone."), ("nets.1.", "pool.")):
            for second in [n for n in state if n.startswith(name + alias)]:
                first = name + real + second.removeprefix(name + alias)
                same = np.array_equal(state[first], state[second]) if first in state else None
                if same is False:
                    raise refuse(source, second, f"the numbers of {first}", "others")
                x = state.pop(second)
                if same is None and not second.endswith(("temperature", "pos_x", "pos_y")):
                    state[first] = x
    return state, functools.partial(hybrid_pieces, keys)


def hybrid_pieces(keys: list[str], ours: Shapes) -> tuple[Piece, ...]:
    found = []
    for i, key in enumerate(keys):
        path, name = (f"encoders_{i}",), f"obs_encoder.obs_nets.{key}"
        body = (*path, "backbone")
        found += networks.resnet(ours, body, f"{name}.backbone.nets", networks.NUMBERED)
        found += networks.points(path, f"{name}.pool.nets", f"{name}.nets.3")
    return tuple(found)


def multi_image(source: str, state: dict, keys: list[str], settings: Mapping):
    """The same of torchvision's ResNets, with the identity in the place of a last layer."""
    del source
    size = settings["encoder.features"]
    arrays = {IDENTITY: np.eye(size, dtype=np.float32), ZEROS: np.zeros(size, np.float32)}
    names = ["rgb"] if settings["encoder.shared"] else keys
    return {**state, **arrays}, functools.partial(multi_pieces, names)


def multi_pieces(names: list[str], ours: Shapes) -> tuple[Piece, ...]:
    found = []
    for i, key in enumerate(names):
        path, name = (f"encoders_{i}",), f"obs_encoder.key_model_map.{key}"
        found += networks.resnet(ours, (*path, "backbone"), name, networks.TORCHVISION)
        found += [Piece((*path, "out", "kernel"), IDENTITY), Piece((*path, "out", "bias"), ZEROS)]
    return tuple(found)


def units_of(source: str, cfg, norms, low, rgb) -> Units:
    """{key: (offset, scale)} of all that is observed, and of the action."""
    found = {key: normalization.of_key(source, norms, key) for key in (*low, "action")}
    for key, size in low.items():
        if len(found[key][1]) != size:
            raise refuse(source, f"cfg.shape_meta.obs.{key}", len(found[key][1]), size)
    for key in rgb:
        offset, scale = normalization.of_key(source, norms, key, normalization.PIXELS)
        if len(scale) not in (1, 3):
            raise refuse(source, f"normalizer.params_dict.{key}", "1 or 3 numbers", len(scale))
        offset, scale = np.broadcast_to(offset, 3), np.broadcast_to(scale, 3)
        if get(cfg, "policy.obs_encoder.imagenet_norm", False):
            # ImageNet's units of what is in [-1, 1] already, as the original has them.
            mean, std = (np.array(x) / normalization.PIXELS for x in IMAGE_MODES["imagenet"])
            offset, scale = np.float32(offset + scale * mean), np.float32(scale * std)
        found[key] = (np.array(offset), np.array(scale))
    return found


def said_of(cfg, settings, multi: bool) -> list[str]:
    """What the user should know of the cameras."""
    said = []
    if settings["encoder.norm"] == "frozen":
        said.append("BatchNorms are folded with their statistics: fine-tuning leaves them fixed")
    if multi:
        said.append("the encoders' last layer is the identity, until it is trained")
        if get(cfg, "policy.obs_encoder.crop_shape") and not get(
            cfg, "policy.obs_encoder.random_crop", True
        ):
            said.append("no crop: with random_crop=False the original does none, whatever it says")
    return said
