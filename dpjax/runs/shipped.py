"""Policies that come with dpjax: trained weights in half precision, a few megabytes each.

A shipped policy is a folder of `dpjax/runs/policies/`: `config.json` as in a run folder, and
`params.safetensors`. `dpjax.load("pusht_demo")` loads one by its name, so that there is something
to act with right after the installation. `experiments/demo/ship.py` makes the folder of a run.
"""

from pathlib import Path

from flax import traverse_util
import jax
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from dpjax.core.normalizer import Normalizer
from dpjax.core.types import Params

FOLDER = Path(__file__).parent / "policies"
PARAMS = "params.safetensors"


def names() -> list[str]:
    """The names of the shipped policies."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{PARAMS}"))


def folder(name: str) -> Path | None:
    """The folder of the shipped policy `name`; None if there is none of that name."""
    return FOLDER / name if name in names() else None


def load_params(directory: Path) -> tuple[Params, int]:
    """The params of a shipped policy in float32, and the training step that they are of."""
    with safe_open(directory / PARAMS, framework="numpy") as file:
        step = int(file.metadata()["step"])
        leaves = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}
    params = traverse_util.unflatten_dict(leaves, sep="/")
    normalizer = params.pop("normalizer")
    # A policy of numbers has an encoder without weights, and files hold no empty dicts.
    return {
        "encoder": params.get("encoder", {}),
        "denoiser": params["denoiser"],
        "normalizer": Normalizer(normalizer["offset"], normalizer["scale"]),
    }, step


def save_params(directory: Path, params: Params, step: int) -> None:
    """Writes `params.safetensors`: networks in half precision, units as they are.

    Raises ValueError if a weight is beyond the range of half precision.
    """
    half = {
        item: jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), params[item])
        for item in ("encoder", "denoiser")
    }
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(half)):
        raise ValueError("a weight is too large for half precision")
    normalizer = params["normalizer"]
    units = {"offset": dict(normalizer.offset), "scale": dict(normalizer.scale)}
    tree = {**half, "normalizer": jax.tree.map(np.asarray, units)}
    leaves = traverse_util.flatten_dict(tree, sep="/")
    leaves = {name: np.ascontiguousarray(leaf) for name, leaf in leaves.items()}
    save_file(leaves, directory / PARAMS, metadata={"step": str(step)})
    (directory / PARAMS).chmod(0o644)  # it is installed for every user of a machine
