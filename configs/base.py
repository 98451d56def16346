"""A config with every key at its default; `dpjax.config.defaults` has the table of keys."""

from dpjax.config.defaults import get_config

__all__ = ["get_config"]
