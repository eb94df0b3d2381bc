"""Generated mistakes: one small change of a tab's source at a time, which the parity checks must reject.

`python -m tests.meta.mutants` plants them and reports which stage rejects each. equivalent.toml lists the mutants that
change no result, with the reason.
"""
