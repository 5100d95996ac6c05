"""FARL's learning system: pure JAX functions over arrays and an environment object.

Read in the paper's order: `bc` and `iql` (cloning, critics), `ope` and `ppo` (offline improvement),
`world_model`, `safety` (the risk and the gate), `offline`, `online`, `evaluate`.
Nothing here knows MuJoCo.
"""
