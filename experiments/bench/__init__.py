"""Measurements on this machine: speed, and scores of the scripted controllers."""
