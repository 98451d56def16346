"""Run folders: training runs, loaded policies, and the files that they leave."""
