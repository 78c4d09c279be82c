"""The checks of `dx-dagster doctor`. Each works by itself: the others may have found everything broken."""

from collections.abc import Callable, Mapping

from dx_dagster.cli.doctor_checks.bitbucket import check_api, check_credentials, check_webhooks
from dx_dagster.cli.doctor_checks.database import check_database, check_keys, check_tables
from dx_dagster.cli.doctor_checks.examination import Examination, Finding
from dx_dagster.cli.doctor_checks.machine import check_clock, check_home, check_ports, check_settings
from dx_dagster.cli.doctor_checks.runs import check_celery, check_daemon, check_dagster

# In this order: later checks use what earlier ones have found.
CHECKS: Mapping[str, Callable[[Examination], list[Finding]]] = {
    "settings": check_settings,
    "home": check_home,
    "database": check_database,
    "tables": check_tables,
    "keys": check_keys,
    "API": check_api,
    "clock": check_clock,
    "ports": check_ports,
    "daemon": check_daemon,
    "Dagster": check_dagster,
    "Celery": check_celery,
    "credentials": check_credentials,
    "webhooks": check_webhooks,
}
