"""What the three tabs share: the contract, the story, the data and the random decisions.

Nothing here imports a framework or ``backends``; import-linter holds the rule.
"""

import time

STARTED = time.perf_counter()  # about when the program began: `run.py` imports this package first
