"""The gate: who acts, what C_H or a critic says, what recovery does."""
