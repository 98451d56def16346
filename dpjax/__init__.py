"""Diffusion Policy in JAX and Flax.

`build.load(run)` gives a trained policy, `control.Controller` executes its plans, and
`policy.Policy` is what a policy is. docs/architecture.md draws the house.
"""
