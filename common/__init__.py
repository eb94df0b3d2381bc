"""What the three tabs share: the contract, the story, the data and the random decisions.

Nothing here imports a framework or ``backends``; import-linter holds the rule.
"""
