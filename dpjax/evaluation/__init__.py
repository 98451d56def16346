"""Rollouts, scores, and the pages that show them."""
