"""Dagster's UI behind a guard, in one process."""
