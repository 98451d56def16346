"""The training state, one step of it, and many steps on many devices."""
