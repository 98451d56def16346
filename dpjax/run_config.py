"""config.json of a run folder: the resolved config, and the spec of its data."""

import functools
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from dpjax.errors import UserError

# Keys that base.py got later, with what runs from before them did: those still load.
LATER = {
    ("data", "mirror"): False,
    ("condition",): "features",
    ("optim", "decay"): "all",
    ("sampler", "warm_start"): 0.0,
    ("method",): "diffusion",
    ("meanflow",): {"share": 0.25, "power": 1.0},
}


class Spec(NamedTuple):
    """What a run observes and does, in its order: saved with it, checked at load.

    observations: {key: size of the last axis}. action: Da. data: the data's fingerprint.
    """

    observations: dict[str, int]
    action: int
    data: str


def write_config(run_dir: Path, config: ConfigDict, spec: Spec) -> None:
    """config.json: the resolved config, and the spec of the data."""
    temporary = run_dir / "config.tmp"
    content = {"config": config.to_dict(), "spec": spec._asdict()}
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(temporary, run_dir / "config.json")


def read_config(run_dir) -> tuple[ConfigDict, Spec]:
    """What `write_config` wrote; JSON's lists become tuples again."""
    path = Path(run_dir) / "config.json"
    if not path.exists():
        raise UserError(f"{run_dir}: no config.json there; a run is what dpjax.train leaves.")
    try:
        content = json.loads(path.read_text())
        for (*sections, key), value in LATER.items():
            functools.reduce(dict.__getitem__, sections, content["config"]).setdefault(key, value)
        config = ConfigDict(restore_tuples(content["config"]))
        return config.lock(), Spec(**content["spec"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a config that dpjax.train wrote ({error!r}).") from None


def restore_tuples(tree: Any) -> Any:
    """Lists made tuples: a list in a flax module can't be hashed."""
    if isinstance(tree, dict):
        return {key: restore_tuples(value) for key, value in tree.items()}
    return tuple(map(restore_tuples, tree)) if isinstance(tree, list) else tree
