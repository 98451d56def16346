"""Reports which features of an RLDS data set no column is read from."""

from collections.abc import Iterable
from typing import Any

from dpjax.core.errors import UserError
from dpjax.core.unread import warn_unread
from dpjax.data.rlds import columns

# The module that wrote a data set is recorded in its dataset_info.json.
OWN = "dpjax."


def report_left_out(info: Any, used: Iterable[str]) -> None:
    """Logs the features of steps and of episodes that are not read, a line per reason.

    info: the data set's tfds.core.DatasetInfo. used: paths inside a step.
    """
    leaves = columns.steps(info)
    unnamed = []
    unreadable = []
    for path in sorted(set(leaves) - set(used)):
        (unnamed if is_readable(info, path, leaves) else unreadable).append(path)
    source = str(info.data_dir)
    warn_unread(source, unnamed, "no column is read from them")
    reason = "neither numbers of fixed shape nor uint8 images [H, W, 3]"
    warn_unread(source, unreadable, reason)
    # What dpjax's converters store with an episode was listed when it was written.
    if not info.as_proto.module_name.startswith(OWN):
        others = [path for path in columns.paths(info) if path != "steps"]
        warn_unread(source, others, "of an episode, not of its steps")


def is_readable(info: Any, path: str, leaves: dict[str, Any]) -> bool:
    """Whether a feature can be read as a column. leaves: what `columns.steps` returned."""
    try:
        columns.column(info, path, leaves)
    except UserError:
        return False
    return True
