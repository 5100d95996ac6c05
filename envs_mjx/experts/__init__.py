"""Scripted controllers, one file for each task: an observation to an action, pure functions."""
