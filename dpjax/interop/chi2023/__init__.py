"""Checkpoints of Chi et al. 2023."""
