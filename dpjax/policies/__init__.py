"""Policies, each of them three pure functions (`base`), and the functions that build them."""
