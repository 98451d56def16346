"""Checkpoints: `writer` writes them, `reader` reads them, `integrity` proves them."""

from dpjax.training.checkpoint.reader import (
    load_items,
    load_params,
    read_meta,
    restore_latest,
    steps,
)
from dpjax.training.checkpoint.writer import Checkpoints, lock

__all__ = ["Checkpoints", "lock", "restore_latest", "load_items", "load_params"]
__all__ += ["steps", "read_meta"]
