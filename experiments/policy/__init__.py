"""Trained policies outside training: runs as Python objects, policies as files."""
