"""The commands: argument parsing and what a person sees."""

from dx_dagster.cli.app import main

__all__ = ["main"]
