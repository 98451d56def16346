"""Other people's formats to RLDS: one file a format, each yields episodes."""
