"""Networks and their training: shapes, distributions, optimisers."""
