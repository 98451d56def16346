"""The diffusion process: schedules, targets, samplers. Imports jax and nothing of nets."""
