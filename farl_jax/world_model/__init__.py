"""The latent world model: network, windows, loss and fit, online adaptation, scores."""
