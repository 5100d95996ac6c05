"""Grids of runs: cells, processes, and the table over them."""
