"""Rollouts in simulators, scores with intervals, errors on held-out data, and reports."""
