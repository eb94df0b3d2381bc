"""The commands of `run.py`, one file each, and the code they share."""
