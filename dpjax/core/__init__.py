"""What every layer shares: data types, errors, units, rotations, the process's settings."""
