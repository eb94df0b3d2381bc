"""The checks of the native pipeline: recover the framework's random parameters from test pictures."""
