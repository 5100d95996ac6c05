"""The tasks of FailureBench, one file each, and what they share."""
