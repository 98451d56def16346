"""LeRobot's policies."""
