"""Reads checkpoints of Chi et al. 2023."""
