"""The machine: environment variables, files, processes, and Ctrl-C."""
