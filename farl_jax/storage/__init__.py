"""Files: checkpoints, metrics, JSON, each whole or not at all."""
