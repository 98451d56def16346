"""The tiny run on data without a simulator: whatever columns there are."""

from ml_collections import ConfigDict

from support import tiny_config


def get_config():
    """tiny_config.py, its task and columns left open."""
    config = tiny_config.get_config()
    config.task = "custom"
    config.data.columns = ConfigDict()
    return config
