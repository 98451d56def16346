"""The check of data and config before training: what will go wrong, and what to do about it."""
