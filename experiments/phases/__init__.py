"""The phases of a run: demonstrations, offline, online, evaluation."""
