"""The story of the demo's workspace: what each week of it is about shows in the measures."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from statistics import median
from typing import Any

from dx_dagster.insights.people import people_file, stating
from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster.sandbox import story as stories
from dx_dagster.sandbox.story import Plot, Story
from dx_dagster.warehouse.database import Warehouse
from dx_dagster_tests.connecting import on_warehouse
from dx_dagster_tests.importing import Installation

NOW = datetime(2026, 11, 5, 15, tzinfo=UTC)
STORY = Story()
SHOWN = 26  # weeks that the pages show at first

Row = Mapping[str, Any]


def test_each_story_of_the_demo_is_in_the_measures(database_url: str) -> None:
    config = WorldConfig(repositories=5, pull_requests=700, members=9, now=NOW, story=STORY)
    with Sandbox(config) as sandbox:
        installation = Installation(database_url, sandbox)
        text = stories.people_file(STORY, sandbox.world.people.members)

        async def state(warehouse: Warehouse) -> None:
            async with warehouse.transaction() as transaction:
                await stating.state(transaction, people_file.read(text.encode()))

        on_warehouse(database_url, state)
        installation.sync()
        assert installation.differences() == {}
    plot = Plot(STORY, NOW)
    rows = installation.query(
        "SELECT w.*, COALESCE(t.source_id, r.name) AS name FROM weekly_measures w "
        "LEFT JOIN dx_teams t ON t.id = w.team_id LEFT JOIN repos r ON r.id = w.repo_id"
    )
    ago = {row["week"]: plot.weeks_ago(datetime.combine(row["week"], datetime.min.time(), UTC)) for row in rows}
    weeks = {ago[row["week"]]: row for row in rows if row["scope"] == "workspace"}
    other = [row for week, row in weeks.items() if week < SHOWN and week not in _weeks_of_stories()]

    def usual(figure: Callable[[Row], float]) -> float:
        return median(figure(row) for row in other)

    assert {week for week in range(SHOWN) if not weeks[week]["deployment_count"]} == set(STORY.freeze_weeks)
    after = weeks[min(STORY.freeze_weeks) - 1]
    assert after["lead_time_median"] > 3 * usual(lambda row: row["lead_time_median"] or 0)

    reverts, broken = weeks[STORY.reverts_week], weeks[STORY.broken_builds_week]
    assert reverts["reverted_count"] >= max(5, *(2 * row["reverted_count"] for row in other))
    assert broken["pipeline_failure_rate"] > 3 * usual(lambda row: row["pipeline_failure_rate"])

    pulls = installation.query("""
        SELECT r.name = 'legacy-checkout' AS slow, percentile_cont(0.5) WITHIN GROUP (ORDER BY pickup_time) AS pickup,
               percentile_cont(0.5) WITHIN GROUP (ORDER BY cycle_time) AS cycle
        FROM pull_request_measures m JOIN repos r ON r.id = m.repo_id WHERE NOT bot_authored GROUP BY 1 ORDER BY 1""")
    assert [row["slow"] for row in pulls] == [False, True]
    assert pulls[1]["pickup"] > max(3 * pulls[0]["pickup"], 24 * 3600)
    assert pulls[1]["cycle"] > 3 * pulls[0]["cycle"]

    with_reviewer = {week: row["bot_review_share"] or 0 for week, row in weeks.items() if 0 < week < SHOWN}
    since = STORY.reviewer_since
    assert min(with_reviewer[week] for week in range(1, since + 1) if week != STORY.holiday_week) > max(
        with_reviewer[week] for week in range(since + 1, SHOWN)
    )
    [quick] = installation.query(
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY open_to_first_bot_review) AS median FROM bitbucket_pulls "
        f"WHERE created_at > '{NOW}'::timestamptz - interval '{since - 1} weeks'"
    )
    assert quick["median"] < 600

    named = {week: row["ai_named_count"] / max(row["merged_count"], 1) for week, row in weeks.items()}
    thirds = [sum(named[week] for week in range(first, first + 7)) for first in (1, 8, 15)]
    assert thirds == sorted(thirds, reverse=True)
    assert thirds[-1] > 0
    assert sum(row["ai_named_count"] for week, row in weeks.items() if week > STORY.assistants_since + 1) == 0

    assert weeks[STORY.holiday_week]["merged_count"] < usual(lambda row: row["merged_count"]) / 2
    teams = {row["name"] for row in rows if row["scope"] == "team" and ago[row["week"]] < SHOWN}
    assert teams == {"Engineering", *(team.path for team in STORY.teams)}


def _weeks_of_stories() -> set[int]:
    """Those that differ from the others, and those that feel it."""
    freeze = STORY.freeze_weeks
    return {STORY.broken_builds_week, STORY.reverts_week, *freeze, min(freeze) - 1, STORY.holiday_week, 0}
