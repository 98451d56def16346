"""Recipes: `base` has every key, each other file is one experiment."""
