"""Weights: canonical names and layouts, and one module per file format."""
