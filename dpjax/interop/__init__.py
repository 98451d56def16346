"""Other people's weights as ours: one file a source."""
