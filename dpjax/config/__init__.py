"""The keys of a config, and the objects that they describe."""
