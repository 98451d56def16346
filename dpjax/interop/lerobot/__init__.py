"""Reads and writes LeRobot's diffusion policies."""
