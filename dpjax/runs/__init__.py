"""Run folders: a training, and what it leaves."""
