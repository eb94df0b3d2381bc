"""Mistakes that are generated: one small change of a tab's source at a time, which the parity checks must reject.

`python -m tests.meta.mutants` plants them and reports how many are rejected, by what. equivalent.toml lists those that
change no result, with the reason.
"""
