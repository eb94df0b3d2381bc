"""Speed and memory, measured: `python -m benchmarks`.

Every figure is a ratio of two things that were measured in turns in one run on one machine: a machine's speed changes
from minute to minute by more than most of what is measured here.
"""
