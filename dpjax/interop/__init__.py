"""Reads the policies of other libraries, and writes dpjax's policies in LeRobot's format."""
