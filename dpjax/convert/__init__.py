"""Demonstrations in other formats, converted to RLDS (python -m dpjax.convert)."""
