"""Compare implementations of one network in several frameworks.

`compare_ports` compares networks of your own: see docs/bring-your-own-port.md. The checks of this project's backends
start at `common.parity.suite`: see docs/parity.md.
"""

from common.parity.ports import Layer, Report, compare_arrays, compare_ports, keep

__all__ = ["Layer", "Report", "compare_arrays", "compare_ports", "keep"]
