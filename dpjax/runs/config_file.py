"""Reads and writes config.json of a run folder: the complete config, and the spec of the data."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dpjax.config import defaults, renamed
from dpjax.core import files
from dpjax.core.errors import UserError
from dpjax.core.spec import Spec


def write_config(run_dir: Path, config: ConfigDict, spec: Spec) -> None:
    """Writes config.json, in full or not at all."""
    # Another process never reads half a file, and a kill leaves the old one.
    content = {"config": config.to_dict(), "spec": spec._asdict()}
    files.write_atomically(run_dir / "config.json", json.dumps(content, indent=2) + "\n")


def read_config(run_dir: str | Path) -> tuple[ConfigDict, Spec]:
    """(config, spec) of a run folder. The config is locked and has all keys of this version."""
    # A folder without this file is not a run folder.
    path = Path(run_dir) / "config.json"
    if not path.exists():
        raise UserError(f"{run_dir}: no config.json there; a run is what dpjax.train leaves.")
    # Whatever is missing or has the wrong type was not written by `write_config`.
    try:
        content = json.loads(path.read_text())
        config = ConfigDict(restore_tuples(complete(content["config"])))
        return config.lock(), Spec(**restore_tuples(content["spec"]))
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a config that dpjax.train wrote ({error!r}).") from None


def complete(config: dict) -> dict:
    """The config of an older run, with the names and the keys of this version.

    Missing keys get their defaults: the default of a new key is how dpjax worked before it.
    """
    # Old names are replaced first. Otherwise the new name would be missing and get its default.
    config = renamed.upgrade(config)
    # Open sections stay as they are, since the user chose their keys.
    for section, values in defaults.get_config().to_dict().items():
        if section not in config:
            config[section] = values
        elif isinstance(values, dict) and section not in defaults.OPEN:
            config[section] = {**values, **config[section]}
    return config


def restore_tuples(tree: Any) -> Any:
    """The tree with tuples in place of lists."""
    # JSON has no tuples. Flax modules need them, since their fields must be hashable.
    if isinstance(tree, dict):
        return {key: restore_tuples(value) for key, value in tree.items()}
    return tuple(map(restore_tuples, tree)) if isinstance(tree, list) else tree
