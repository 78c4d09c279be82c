"""The page of data quality: how fresh and how whole the rows behind the figures are."""

from dx_dagster.api.installation import ServedInstallation
from dx_dagster.api.pages.figure_tables import Listing
from dx_dagster.insights import quality
from dx_dagster.warehouse import request_counts
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.schema.measures import FEW


async def listings(served: ServedInstallation) -> list[Listing]:
    warehouse = await served.warehouse()
    every = await connections.all_connections(warehouse)
    counts = await request_counts.read(warehouse)
    async with warehouse.transaction(read_only=True) as transaction:
        last = await quality.last_rows(transaction, FEW)
        skipped = await quality.skipped_repositories(transaction)
        failed = await quality.failed_checks(transaction)
        days = await quality.requests_by_day(transaction, served.settings.time_zone)
    return [
        Listing(
            "freshness",
            "Freshness",
            "When each connection was last read with success.",
            ("workspace", "connection", "state", "last sync", "last error"),
            [
                (
                    one.workspace,
                    one.type,
                    "disabled" if one.disabled_at else one.standing,
                    one.last_synced_at,
                    one.last_error or "",
                )
                for one in every
            ],
            "No workspace is connected.",
        ),
        Listing(
            "weeks",
            "Weeks with figures",
            f"The newest week of each workspace, and how many weeks have fewer than {FEW} merged pull requests.",
            ("workspace", "repositories", "newest week", "weeks", "weeks with few"),
            [(one.workspace, one.repositories, one.last_week, one.weeks, one.few_weeks) for one in last],
            "Nothing is imported yet.",
        ),
        Listing(
            "skipped",
            "Skipped repositories",
            "Repositories of which the last sync read nothing new. Their figures end where access ended.",
            ("workspace", "repository", "reason"),
            [(one.workspace, one.repository, one.reason) for one in skipped],
            "Every repository is read.",
        ),
        Listing(
            "checks",
            "Checks that warn",
            "Checks of assets that do not pass, as Dagster shows them.",
            ("workspace", "asset", "check", "result", "reported"),
            [(one.workspace, one.asset, one.name, one.said, one.reported_at) for one in failed],
            "Every check passes, or none has run yet.",
        ),
        Listing(
            "requests",
            "Requests by day",
            "Requests that syncs sent in the last 14 days.",
            ("day", "workspace", "requests"),
            [(one.day, one.workspace, one.requests) for one in days],
            "No sync has sent a request in the last 14 days.",
        ),
        Listing(
            "answers",
            "Answers by credential",
            "All requests ever sent with each credential, by the status of their answers.",
            ("workspace", "connection", "credential", "status", "requests"),
            [(one.workspace, one.connection, one.label, one.status, one.requests) for one in counts],
            "No request was sent yet.",
        ),
    ]
