"""Dagster's software-defined assets: thin, each one step of the importer and what it reports."""
