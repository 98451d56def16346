"""The networks: denoisers of action chunks and encoders of observations.

Every network has a static field `kernels`: which form of convolutions, products and norms it
computes, "auto" or "xla" (`ops/kernels.py`).
"""
