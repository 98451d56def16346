"""Running a policy: compiled programs, the controller of a robot, and exported policies."""
