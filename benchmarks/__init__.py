"""Measure speed and memory: `python -m benchmarks`.

Every result is a ratio of two rates that were measured in turns, in one run on one machine. The speed of a machine
changes from minute to minute, often by more than the effects that are measured here.
"""
