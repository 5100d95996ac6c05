"""The online phase: the one loop of all methods."""
