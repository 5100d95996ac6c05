"""The robots, each a part that a task names: scene, control, readings and start."""
