"""MuJoCo: the thin scene, and one batched step on three backends."""
