"""The commands. Only this package imports both the learner and the simulator."""
