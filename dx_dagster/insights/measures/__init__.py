"""Measures: figures of each pull request, and of each week."""

from dx_dagster.insights.building import Build
from dx_dagster.insights.measures import pull_requests, weeks

BUILDS: tuple[Build, ...] = (pull_requests.BUILD, weeks.BUILD)
