"""Commands: the only place that knows both the learner and the simulator."""
