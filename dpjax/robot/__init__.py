"""A policy on a robot: time stamps, limits, the control loop, recordings."""
