"""The checks, a file for each part of a backend that they compare with the reference."""
