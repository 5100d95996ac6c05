"""Figures: the one place that draws, their style, and each figure."""
