"""`dx-dagster status`."""

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dx_dagster.cli.installation import Installation
from dx_dagster.cli.json_output import print_json
from dx_dagster.clock import HOST, ago
from dx_dagster.settings import Settings

if TYPE_CHECKING:
    from dx_dagster.connections.health import Health
    from dx_dagster.warehouse.connections.connections import StoredConnection
    from dx_dagster.warehouse.database import Warehouse
    from dx_dagster.warehouse.webhooks.belief import Belief


def status(json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Shows the state of each workspace: last sync, rows, inbox and credentials.

    Example: dx-dagster status --json
    """
    settings = Settings.read()
    installation = Installation.open(settings)
    workspaces = installation.run(partial(_workspaces, settings))
    _add_materializations(installation, workspaces)
    if json_:
        print_json({"workspaces": workspaces})
    else:
        _print(workspaces)


async def _workspaces(settings: Settings, warehouse: "Warehouse") -> list[dict[str, Any]]:
    from dx_dagster.connections.health import WITH_BUDGETS, health
    from dx_dagster.warehouse import counts
    from dx_dagster.warehouse.connections import connections
    from dx_dagster.warehouse.imported import bounds
    from dx_dagster.warehouse.webhooks import belief, inbox

    found = []
    depths = await inbox.depths(warehouse)
    known = await connections.all_connections(warehouse)
    for connection in known:
        if connection.type != "bitbucket":
            continue
        since = await bounds.of_workspace(warehouse, connection.workspace)
        found.append(
            {
                "workspace": connection.workspace,
                "since": since.isoformat() if since else None,
                "state": "disabled" if connection.disabled_at else connection.standing,
                "last_error": connection.last_error,
                "failing_since": connection.failing_since.isoformat() if connection.failing_since else None,
                "last_synced_at": connection.last_synced_at.isoformat() if connection.last_synced_at else None,
                "lag_seconds": _lag(connection.last_synced_at),
                "rows": await counts.of_workspace(warehouse, connection.workspace),
                "inbox": depths.get(connection.workspace, 0),
                "synced_by": _way(await belief.read(warehouse, connection.workspace)),
                "credentials": [
                    _credential(other, one)
                    for other in known
                    if other.workspace == connection.workspace and other.type in WITH_BUDGETS
                    for one in await health(settings, warehouse, other)
                ],
            }
        )
    return found


def _way(believed: "Belief") -> dict[str, Any]:
    """Which way scheduled syncs go, and why."""
    since = believed.vouched_from
    return {
        "way": "webhook" if since else "pace",
        "believed_since": since.isoformat() if since else None,
        "reason": believed.reason,
        "untold_changes": believed.untold,
    }


def _credential(connection: "StoredConnection", one: "Health") -> dict[str, Any]:
    shown = one.credential
    return {
        "id": shown.id,
        "connection": connection.type,
        "type": shown.type,
        "label": shown.label,
        "hint": shown.hint,
        "expiration_date": shown.expiration_date.isoformat() if shown.expiration_date else None,
        "disabled_at": shown.disabled_at.isoformat() if shown.disabled_at else None,
        "disabled_reason": shown.disabled_reason,
        "requests_left": one.left,
        "request_limit": one.limit,
        "rests_until": one.rests_until.isoformat() if one.rests_until else None,
    }


def _lag(moment: datetime | None) -> float | None:
    return round((HOST.now() - moment).total_seconds(), 1) if moment else None


def _add_materializations(installation: Installation, workspaces: list[dict[str, Any]]) -> None:
    """Adds when each asset of each workspace was last materialized."""
    import dagster as dg

    from dx_dagster.definitions import defs

    with installation.dagster() as instance:
        for workspace in workspaces:
            assets = {}
            for key in sorted(defs.resolve_asset_graph().executable_asset_keys):
                records = instance.fetch_materializations(
                    dg.AssetRecordsFilter(asset_key=key, asset_partitions=[workspace["workspace"]]), limit=1
                ).records
                moment = datetime.fromtimestamp(records[0].timestamp, UTC).isoformat() if records else None
                assets[key.to_user_string()] = {"last_materialized_at": moment}
            workspace["assets"] = assets


def _print(workspaces: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from dx_dagster.cli.consoles import plain

    console = plain()
    if not workspaces:
        console.print("No workspace is connected. To connect one: dx-dagster connect WORKSPACE")
    for one in workspaces:
        synced = f"last synced {_ago(one['last_synced_at'])}"
        bound = f", imported since {datetime.fromisoformat(one['since']):%Y-%m-%d %H:%M} UTC" if one["since"] else ""
        state = f"  {one['state']}, {synced}{bound}, deliveries in the inbox: {one['inbox']:,}"
        console.print(Text.assemble((one["workspace"], "bold"), state))
        console.print(f"  {_how(one['synced_by'])}")
        if untold := one["synced_by"]["untold_changes"]:
            console.print(f"  Changes of the last 7 days that a reconcile found and no delivery told: {untold:,}")
        if one["last_error"]:
            console.print(f"  Syncs began to fail {_ago(one['failing_since'])}: {one['last_error']}")
        table = Table("asset", "last materialized")
        for name, asset in one["assets"].items():
            table.add_row(name, _ago(asset["last_materialized_at"]))
        console.print(table)
        table = Table("table", "rows")
        for name, rows in one["rows"].items():
            table.add_row(name, f"{rows:,}")
        console.print(table)
        for credential in one["credentials"]:
            console.print(_line(credential))


def _how(synced: dict[str, Any]) -> str:
    if synced["way"] == "webhook":
        since = datetime.fromisoformat(synced["believed_since"])
        return f"Scheduled syncs believe the webhook, since {since:%Y-%m-%d %H:%M} UTC"
    return f"Scheduled syncs ask each repository at its own pace: {synced['reason']}"


def _ago(moment: str | None) -> str:
    return ago(datetime.fromisoformat(moment)) if moment else "never"


def _line(credential: dict[str, Any]) -> str:
    from dx_dagster.bitbucket import clause

    purpose = "" if credential["connection"] == "bitbucket" else f" ({credential['connection']})"
    state = f"disabled: {clause(credential['disabled_reason'] or '')}" if credential["disabled_at"] else "enabled"
    left = credential["requests_left"]
    budget = "" if left is None else f", {left:,} of {credential['request_limit']:,} requests left"
    if credential["rests_until"]:
        budget += f", room again {_ago(credential['rests_until'])}"
    return f"credential {credential['id']}{purpose}  {credential['label']}: {state}{budget}"
