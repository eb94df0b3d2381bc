"""Checks that versions of one network in several frameworks compute the same.

`compare_ports` is for networks of your own: see docs/bring-your-own-port.md. What proves this project's backends starts
with `common.parity.suite`: see docs/parity.md.
"""

from common.parity.ports import Layer, Report, compare_arrays, compare_ports, keep

__all__ = ["Layer", "Report", "compare_arrays", "compare_ports", "keep"]
