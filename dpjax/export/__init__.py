"""Writes runs as files for other programs: `python -m dpjax.export`."""
