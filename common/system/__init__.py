"""The operating system: environment variables, files, processes, and Ctrl-C."""
