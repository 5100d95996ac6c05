"""The phases of a run: demonstrations, offline, online, and how policies are judged."""
