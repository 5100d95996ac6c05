"""The offline phase: cloning, critics, policy improvement, recovery."""
