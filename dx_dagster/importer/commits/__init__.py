"""Commits of default branches and of pull requests: the step, and each way to get them."""
