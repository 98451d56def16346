"""config.json of a run folder: the complete config, and the spec of its data."""

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
    content = {"config": config.to_dict(), "spec": spec._asdict()}
    files.write_atomically(run_dir / "config.json", json.dumps(content, indent=2) + "\n")


def read_config(run_dir: str | Path) -> tuple[ConfigDict, Spec]:
    """The config, locked, and the spec that `write_config` wrote, with today's names and keys."""
    # The one file that makes a folder a run.
    path = Path(run_dir) / "config.json"
    if not path.exists():
        raise UserError(f"{run_dir}: no config.json there; a run is what dpjax.train leaves.")
    try:
        content = json.loads(path.read_text())
        config = ConfigDict(restore_tuples(complete(content["config"])))
        return config.lock(), Spec(**restore_tuples(content["spec"]))
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a config that dpjax.train wrote ({error!r}).") from None


def complete(config: dict) -> dict:
    """The config of an older run with today's names, and with the keys that came later.

    The default of a new key is what dpjax did before it had the key.
    """
    # Old names first, so that no default takes the place of a value under its old name.
    config = renamed.upgrade(config)
    # Open sections are taken as they are: their keys are the user's own.
    for section, values in defaults.get_config().to_dict().items():
        if section not in config:
            config[section] = values
        elif isinstance(values, dict) and section not in defaults.OPEN:
            config[section] = {**values, **config[section]}
    return config


def restore_tuples(tree: Any) -> Any:
    """JSON's lists as tuples: flax modules must be hashable, and lists are not."""
    if isinstance(tree, dict):
        return {key: restore_tuples(value) for key, value in tree.items()}
    return tuple(map(restore_tuples, tree)) if isinstance(tree, list) else tree
