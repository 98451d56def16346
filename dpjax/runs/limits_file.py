"""The limits of the demonstrations, kept in the run folder for the robot loop: limits.json."""

import json
from pathlib import Path

from ml_collections import ConfigDict

from dpjax.config import dataset
from dpjax.core import files
from dpjax.core.errors import UserError
from dpjax.data.episodes import Episodes
from dpjax.robot import limits as limits_lib
from dpjax.robot.limits import Limits
from dpjax.runs import outputs

NAME = "limits.json"


def write(folder: Path, episodes: Episodes) -> None:
    """Fits the limits to the episodes that a run is trained on, and writes them."""
    content = json.dumps(limits_lib.to_json(limits_lib.fit(episodes)), indent=1)
    files.write_atomically(folder / NAME, content + "\n")


def read(run: str | Path, config: ConfigDict) -> Limits:
    """The limits of a run folder or of a shipped policy.

    config: the run's config. A run of an older version has no limits.json: they are computed from
        its data, if that is still where it was.

    Raises UserError if neither exists, or if the file is damaged.
    """
    folder = outputs.shipped_folder(str(run)) or Path(run)
    # A shipped policy has its limits beside its weights.
    path = folder / NAME
    if not path.exists():
        try:
            return limits_lib.fit(dataset.read(config).train)
        except UserError as error:
            raise UserError(
                f"{path} is missing, as in runs of older versions, and the data can't be read to "
                f"make it ({error}) Set config.data.dir in config.json to where the data is."
            ) from error
    try:
        return limits_lib.from_json(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: can't be read ({error!r}): copy it again.") from error
