"""Looks at data and config before training, and says what will go wrong, and what to do."""
