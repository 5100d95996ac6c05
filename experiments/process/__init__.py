"""The process around a command: JAX made ready, signals, streams, the console, its outputs."""
