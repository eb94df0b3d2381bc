"""The checks: one file for each part of a backend that is compared with the reference."""
