"""Every key of dpjax with its default: `dpjax.config.defaults`, passed on for recipes."""

from dpjax.config.defaults import get_config

__all__ = ["get_config"]
