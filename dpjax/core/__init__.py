"""Shared by all packages: data types, errors, normalizer, rotations, files, process settings."""
