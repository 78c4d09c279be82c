"""When Dagster imports what: jobs, schedules, sensors."""
