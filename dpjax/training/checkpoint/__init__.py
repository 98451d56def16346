"""Checkpoints: `writer` writes them, `reader` reads them, `integrity` proves them.

`layout` says what they look like on disk, and `run_lock` keeps a second process away.
"""

from dpjax.training.checkpoint.layout import read_meta, steps
from dpjax.training.checkpoint.reader import load_items, load_params, restore_latest
from dpjax.training.checkpoint.run_lock import lock
from dpjax.training.checkpoint.writer import Checkpoints

__all__ = ["Checkpoints", "lock", "restore_latest", "load_items", "load_params"]
__all__ += ["steps", "read_meta"]
