"""Bitbucket Cloud in PostgreSQL, correct to the row, as Dagster assets."""
