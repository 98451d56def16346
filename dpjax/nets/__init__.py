"""The networks: denoisers and image encoders."""
