"""Dagster's assets: each runs one step of the importer and reports the result."""
