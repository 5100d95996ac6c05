"""Evaluation, diagnosis and intervals."""
