"""A run's folder: its settings, its files, where they come from, and how work on it begins."""
