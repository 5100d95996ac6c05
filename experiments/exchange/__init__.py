"""Demonstrations of others, and ours for others."""
