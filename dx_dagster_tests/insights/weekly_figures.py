"""The figures of `weekly_measures` worked out once more, by polars and not by SQL, from the rows that they count."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import psycopg
from psycopg.rows import dict_row

from dx_dagster.warehouse.schema.measures import BUSINESS_HOURS, DURATIONS, PERCENTILES

Key = tuple[str, str, date]  # scope, its id and week
WEEK = timedelta(days=7)
POSSIBLE = range(1971, 2970)
_PULLS = """
    SELECT m.*, r.workspace_id::text AS workspace FROM pull_request_measures m
    JOIN bitbucket_repositories r ON r.id = m.source_table_repo_id"""
_REVIEWS = """
    SELECT v.created, v.repo_id, v.dx_user_id, v.bot_authored, r.workspace_id::text AS workspace
    FROM pull_request_reviews v JOIN bitbucket_repositories r ON r.id = v.source_table_repo_id
    JOIN pull_requests t ON t.id = v.pull_request_id WHERE v.dx_user_id IS DISTINCT FROM t.dx_user_id
    OR v.dx_user_id IS NULL"""
_RUNS = """
    SELECT g.finished_at, g.repo_id, g.dx_user_id, g.status, g.duration, r.workspace_id::text AS workspace
    FROM pipeline_runs g JOIN bitbucket_pipelines t ON t.id = g.source_table_id
    JOIN bitbucket_repositories r ON r.id = t.repository_id"""
_DEPLOYMENTS = """
    SELECT d.id, d.service_id AS repo_id, d.deployed_at, d.success, d.environment, t.environment_id::text AS place,
           d.commit_sha, r.workspace_id::text AS workspace,
           ARRAY(SELECT a.pull_request_id FROM deployment_pull_requests a WHERE a.deployment_id = d.id) AS pulls
    FROM deployments d JOIN bitbucket_deployments t ON t.id = d.source_table_id
    JOIN bitbucket_repositories r ON r.id = t.repository_id ORDER BY d.deployed_at, d.id"""
_TEAMS = """
    SELECT u.id, h.ancestor_id FROM dx_users u JOIN dx_team_hierarchies h ON h.descendant_id = u.team_id"""


def weekly_figures(url: str, zone: str) -> dict[Key, dict[str, Any]]:
    """Every row by its key, without those figures that are 0 or unknown."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        connection.execute("SET TIME ZONE 'UTC'")

        def rows(query: str) -> list[dict[str, Any]]:
            return connection.execute(query.encode()).fetchall()

        teams = defaultdict[int | None, list[str]](list)
        for row in rows(_TEAMS):
            teams[row["id"]].append(str(row["ancestor_id"]))
        pulls, deployments = rows(_PULLS), rows(_DEPLOYMENTS)
        scoped = _Scoped(teams, ZoneInfo(zone))
        frames = {
            "pulls": scoped.frame(pulls, "merged"),
            "leads": scoped.frame([row for row in pulls if not row["bot_authored"]], "deployed_at"),
            "reviews": scoped.frame(rows(_REVIEWS), "created"),
            "runs": scoped.frame(
                [row for row in rows(_RUNS) if row["status"] in {"success", "failure"}], "finished_at"
            ),
            "deployments": scoped.frame(
                _deployments(deployments, {row["pull_request_id"]: row for row in pulls}), "at"
            ),
        }
    found = defaultdict[Key, dict[str, Any]](dict)
    for name, figures in (
        ("pulls", _of_pulls), ("leads", _of_leads), ("runs", _of_runs), ("deployments", _of_deployments),
    ):  # fmt: skip
        for key, group in _groups(frames[name]):
            found[key] |= figures(group)
    _add_reviews(found, frames["reviews"], frames["pulls"])
    return {key: {name: value for name, value in row.items() if value} for key, row in found.items()}


class _Scoped:
    def __init__(self, teams: Mapping[int | None, Sequence[str]], zone: ZoneInfo) -> None:
        self._teams, self._zone = teams, zone

    def frame(self, rows: Sequence[Mapping[str, Any]], moment: str) -> pl.DataFrame:
        """A row for each scope that the row counts in, with `scope`, `scope_id` and `week`."""
        made = []
        for row in rows:
            if row[moment] is None or row[moment].year not in POSSIBLE:
                continue
            day = row[moment].astimezone(self._zone).date()
            authors = row.get("authors") or [row.get("dx_user_id")]
            scopes = [("workspace", row["workspace"]), ("repository", str(row["repo_id"]))]
            scopes += sorted({("team", team) for author in authors for team in self._teams[author]})
            week = day - timedelta(days=day.weekday())
            made += [{**row, "scope": scope, "scope_id": number, "week": week} for scope, number in scopes]
        return pl.DataFrame(made, infer_schema_length=None)


def _groups(frame: pl.DataFrame) -> Iterator[tuple[Key, pl.DataFrame]]:
    if frame.is_empty():
        return
    for (scope, number, week), group in frame.group_by("scope", "scope_id", "week"):
        yield (str(scope), str(number), week), group


def _spread(name: str, values: pl.Series) -> dict[str, Any]:
    known = values.drop_nulls().cast(pl.Float64)
    return {f"{name}_{which}": known.quantile(share, "linear") for which, share in PERCENTILES.items()}


def _durations(group: pl.DataFrame, *names: str) -> dict[str, Any]:
    found = {}
    for name in names:
        found[f"{name}_count"] = group[name].drop_nulls().len()
        found |= _spread(name, group[name])
        found |= _spread(name + BUSINESS_HOURS, group[name + BUSINESS_HOURS])
    return found


def _of_pulls(every: pl.DataFrame) -> dict[str, Any]:
    group = every.filter(~pl.col("bot_authored"))
    people = group["dx_user_id"].drop_nulls().n_unique()
    flags = ("merged_without_review", "re_reviewed", "reverted", "ai_named")
    counts = {f"{name}_count": group[name].sum() for name in flags}
    bots = every.height - group.height
    return {
        "merged_count": group.height,
        "engineer_count": people,
        "throughput_per_engineer": group.height / people if people else None,
        "bot_merged_count": bots,
        "bot_merged_share": bots / every.height,
        **counts,
        "merged_without_review_share": counts["merged_without_review_count"] / group.height if group.height else None,
        "ai_account_count": every["ai_account"].sum(),
        **_durations(group, *(name for name in DURATIONS if name != "lead_time")),
    }


def _of_leads(group: pl.DataFrame) -> dict[str, Any]:
    return _durations(group, "lead_time")


def _of_runs(group: pl.DataFrame) -> dict[str, Any]:
    failed = group.filter(pl.col("status") == "failure").height
    return {
        "pipeline_count": group.height,
        "pipeline_failure_count": failed,
        "pipeline_failure_rate": failed / group.height,
        "pipeline_duration_count": group["duration"].drop_nulls().len(),
        **_spread("pipeline_duration", group["duration"]),
    }


def _deployments(rows: Sequence[Mapping[str, Any]], pulls: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Deployments to production, with whether each was rolled back or reverted within seven days."""
    places = defaultdict[str, list[Mapping[str, Any]]](list)
    for row in rows:
        if row["success"]:
            places[row["place"]].append(row)
    rolled = {}
    for those in places.values():
        stays = [those[0]] + [later for before, later in pairwise(those) if later["commit_sha"] != before["commit_sha"]]
        for place, (before, later) in enumerate(pairwise(stays)):
            if later["commit_sha"] in {one["commit_sha"] for one in stays[:place]}:
                following = [one for one in those if before["deployed_at"] <= one["deployed_at"] < later["deployed_at"]]
                rolled.update({one["id"]: later["deployed_at"] for one in following})
    made = []
    for row in rows:
        if row["environment"] == "production":
            ends = [rolled.get(row["id"]), *(pulls[number]["reverted_at"] for number in row["pulls"])]
            failed = any(end is not None and row["deployed_at"] <= end <= row["deployed_at"] + WEEK for end in ends)
            authors = [pulls[number]["dx_user_id"] for number in row["pulls"]]
            made.append(
                {**row, "at": row["deployed_at"], "authors": authors, "failed": bool(row["success"] and failed)}
            )
    return made


def _of_deployments(group: pl.DataFrame) -> dict[str, Any]:
    ended, failed = group.filter("success").height, group.filter("failed").height
    return {
        "deployment_count": ended,
        "failed_deployment_count": group.height - ended,
        "change_failure_count": failed,
        "change_failure_rate": failed / ended if ended else None,
    }


def _add_reviews(found: dict[Key, dict[str, Any]], reviews: pl.DataFrame, pulls: pl.DataFrame) -> None:
    loads = defaultdict[Key, dict[int, int]](dict)
    for key, group in _groups(pulls):
        for person in group.filter(~pl.col("bot_authored"))["dx_user_id"].drop_nulls():
            loads[key][person] = 0
    for key, every in _groups(reviews):
        group = every.filter(~pl.col("bot_authored"))
        bots = every.height - group.height
        found[key] |= {
            "review_count": group.height,
            "bot_review_count": bots,
            "bot_review_share": bots / every.height,
            "reviewer_count": group["dx_user_id"].n_unique(),
        }
        for person, count in group["dx_user_id"].value_counts().iter_rows():
            loads[key][person] = count
    for key, load in loads.items():
        found[key]["review_load_count"] = len(load)
        if any(load.values()):
            found[key]["review_load_gini"] = _gini(list(load.values()))


def _gini(values: Sequence[int]) -> float:
    """Half of the mean difference between any two, as a part of the mean."""
    differences = sum(abs(one - other) for one in values for other in values)
    return differences / (2 * len(values) * sum(values))
