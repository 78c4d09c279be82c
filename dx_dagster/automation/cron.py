"""Cron expressions of settings."""

import dagster as dg

from dx_dagster.settings import SettingsError


def known(variable: str, expression: str) -> str:
    """The expression, if Dagster accepts it.

    Raises:
        SettingsError: Dagster rejects it.
    """
    try:
        dg.ScheduleDefinition(name="tried", job_name="tried", cron_schedule=expression)
    except dg.DagsterInvalidDefinitionError:
        raise SettingsError(
            f"{variable} is {expression!r}, which is not a valid cron expression. An example is */5 * * * *: "
            "minute, hour, day of the month, month and day of the week."
        ) from None
    return expression
