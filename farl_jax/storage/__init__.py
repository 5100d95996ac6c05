"""Files: checkpoints, metrics and JSON, each written whole or not at all."""
