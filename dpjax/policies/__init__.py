"""A policy is three pure functions; how they are built."""
