"""Policies that come with dpjax: trained weights in half precision, a few megabytes each.

A shipped policy is a folder in `dpjax/runs/policies/` with `config.json`, as in a run folder, and
`params.safetensors`. `dpjax.load("pusht_demo")` loads a policy by its name, so that one can be
tried right after the installation. `experiments/demo/ship.py` makes such a folder from a run.
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
# {encoder/…, denoiser/…, normalizer/…: array}, and the training step in the file's metadata.
PARAMS = "params.safetensors"


def names() -> list[str]:
    """The names of the shipped policies."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{PARAMS}"))


def folder(name: str) -> Path | None:
    """The folder of the shipped policy `name`; None if there is none of that name."""
    # Looked up in the list, so that a name such as "../x" leads nowhere.
    return FOLDER / name if name in names() else None


def load_params(directory: Path) -> tuple[Params, int]:
    """The params of a shipped policy in float32, and their training step."""
    # On the disk they have half precision; sampling uses float32.
    with safe_open(directory / PARAMS, framework="numpy") as file:
        step = int(file.metadata()["step"])
        leaves = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}
    params = traverse_util.unflatten_dict(leaves, sep="/")
    normalizer = params.pop("normalizer")
    # A policy of numbers has an encoder without weights. The file cannot hold its empty dict.
    return {
        "encoder": params.get("encoder", {}),
        "denoiser": params["denoiser"],
        "normalizer": Normalizer(normalizer["offset"], normalizer["scale"]),
    }, step


def save_params(directory: Path, params: Params, step: int) -> None:
    """Writes `params.safetensors`: networks in half precision, the normalizer in full.

    Raises ValueError if a weight is beyond the range of half precision.
    """
    # 1. The networks. A weight above 65,504 becomes infinite.
    half = {
        item: jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), params[item])
        for item in ("encoder", "denoiser")
    }
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(half)):
        raise ValueError("a weight is too large for half precision")
    # 2. The normalizer, in full: its offsets and scales are in the units of the data.
    normalizer = params["normalizer"]
    units = {"offset": dict(normalizer.offset), "scale": dict(normalizer.scale)}
    tree = {**half, "normalizer": jax.tree.map(np.asarray, units)}
    # 3. One file with a name per array. safetensors writes the memory of an array as it lies there,
    # so it must be contiguous.
    leaves = traverse_util.flatten_dict(tree, sep="/")
    leaves = {name: np.ascontiguousarray(leaf) for name, leaf in leaves.items()}
    save_file(leaves, directory / PARAMS, metadata={"step": str(step)})
    (directory / PARAMS).chmod(0o644)  # it is installed for every user of a machine
