"""Studies of finished runs: comparison, diagnosis, horizon, film."""
