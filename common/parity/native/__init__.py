"""The checks of the native pipeline: what the framework draws, found again in known pictures."""
