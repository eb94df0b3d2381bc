"""The commands of `run.py`, one file each, and what they share."""
