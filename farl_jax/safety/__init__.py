"""The gate: risk estimates, the choice of who acts, and recoveries."""
