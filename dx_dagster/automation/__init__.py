"""Jobs, schedules and sensors: when Dagster imports which workspace."""
