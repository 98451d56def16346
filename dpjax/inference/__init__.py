"""From a sampling function to the next action of a robot."""
