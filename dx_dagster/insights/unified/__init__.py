"""DX's unified tables, one module for each."""

from dx_dagster.insights.building import Build
from dx_dagster.insights.unified import repos

BUILDS: tuple[Build, ...] = (repos.BUILD,)
"""In an order in which each comes after those that it reads."""
