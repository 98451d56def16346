"""A run as a file for other programs (python -m dpjax.export)."""
