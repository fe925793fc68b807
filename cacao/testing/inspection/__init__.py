"""Looking into an app under test: its tasks, what it has taken, and how to say it."""
