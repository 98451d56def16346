"""Recipes: `base` has every key at its default, each other file is one experiment."""
