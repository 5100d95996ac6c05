"""Scripted controllers, one file a task: pure functions of an observation to an action."""
