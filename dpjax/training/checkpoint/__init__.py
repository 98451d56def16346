"""Checkpoints: `writer` writes them, `reader` reads them, `integrity` verifies them.

`layout` defines their files and folders. `run_lock` keeps two processes from training in the same
run folder.
"""

from dpjax.training.checkpoint.layout import read_meta, steps
from dpjax.training.checkpoint.reader import load_items, load_params, restore_latest
from dpjax.training.checkpoint.run_lock import lock
from dpjax.training.checkpoint.writer import Checkpoints

__all__ = ["Checkpoints", "lock", "restore_latest", "load_items", "load_params"]
__all__ += ["steps", "read_meta"]
