"""The keys of a config, their checks, and the objects that are built from them."""
