"""The training state, a training step, and running many steps on many devices."""
