"""Activity of pull requests: the step, and the feed of a repository."""
