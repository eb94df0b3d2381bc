"""Framework-free code that the three tabs share: the contract, the commands, the data and the random decisions.

Nothing here imports a framework or ``backends``; import-linter checks this.
"""

import time

STARTED = (
    time.perf_counter()
)  # start of the program, approximately: `run.py` imports this package first
