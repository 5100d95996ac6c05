"""Steps: rollouts, datasets, rings, margins."""
