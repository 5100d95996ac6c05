"""A trained policy outside training: a run as a Python object, and its policy as a file."""
