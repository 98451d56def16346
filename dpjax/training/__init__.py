"""The training state, a step of it, and steps on many devices."""
