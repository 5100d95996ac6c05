"""The process around a command: JAX's setup, signals, streams, console, output files."""
