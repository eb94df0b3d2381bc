"""Weights: their canonical names and layouts, and one file for each file format."""
