"""The story of the demo's workspace: what each week of it is about shows in the measures."""

from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from dx_dagster.sandbox import World, WorldConfig, truth
from dx_dagster.sandbox.story import Plot, Story
from dx_dagster.sandbox.unified_truth import unified_truth
from dx_dagster.sandbox.unified_truth_pipelines import unified_truth_of_pipelines

SHOWN = range(26)  # weeks that the pages show at first


def test_each_story_of_the_demo_is_in_the_measures_of_its_weeks() -> None:
    """`test_changing_worlds.py` compares these expected rows with those of an import."""
    story, now = Story(), datetime(2026, 11, 5, 15, tzinfo=UTC)
    world, plot = World(WorldConfig(now=now, story=story)), Plot(story, now)
    rows = truth(world)
    pulls = [one for one in unified_truth(rows)["pull_request_measures"] if not one["bot_authored"]]
    pipelines = unified_truth_of_pipelines(rows)
    merged = defaultdict[int, list[Any]](list)
    for pull in pulls:
        if pull["merged"]:
            merged[plot.weeks_ago(pull["merged"])].append(pull)
    thaw = min(story.freeze_weeks) - 1
    told = {story.broken_builds_week, story.reverts_week, *story.freeze_weeks, thaw, story.holiday_week, 0}

    def stands_out(week: int, figure: Callable[[int], float], times: float) -> bool:
        return figure(week) > times * max(figure(other) for other in SHOWN if other not in told)

    deployed = sorted(
        (one["deployed_at"], one["service_repository"])
        for one in pipelines["deployments"]
        if one["success"] and one["environment"] == "production"
    )
    by_week = Counter(plot.weeks_ago(at) for at, _ in deployed)
    assert {week for week in SHOWN if not by_week[week]} == set(story.freeze_weeks)
    waited = defaultdict[int, list[float]](list)
    for pull in pulls:
        if pull["merged"] and (
            first := next((at for at, of in deployed if of == pull["repository"] and at > pull["merged"]), None)
        ):
            waited[plot.weeks_ago(first)].append((first - pull["merged"]).total_seconds())
    assert stands_out(thaw, lambda week: median(waited[week]), 3)

    failed = Counter(
        plot.weeks_ago(run["finished_at"]) for run in pipelines["pipeline_runs"] if run["status"] == "failure"
    )
    assert stands_out(story.broken_builds_week, lambda week: failed[week] / len(merged[week]), 2)
    assert stands_out(story.reverts_week, lambda week: sum(pull["reverted"] for pull in merged[week]), 3)

    slow = world.repository(story.slow_repository).uuid
    for duration in ("pickup_time", "cycle_time"):
        theirs, others = (
            median(pull[duration] for pull in pulls if pull[duration] and (pull["repository"] == slow) is is_slow)
            for is_slow in (True, False)
        )
        assert theirs > max(3 * others, timedelta(days=1).total_seconds())

    first_by_bots = defaultdict[bool, list[float | None]](list)
    for pull in rows["bitbucket_pulls"]:
        opened: Any = pull["created_at"]
        first_by_bots[plot.has_reviewer(opened)].append(pull["open_to_first_bot_review"])  # type: ignore[arg-type]
    quick = {
        since: sum(one is not None and one < 600 for one in those) / len(those)
        for since, those in first_by_bots.items()
    }
    assert quick[True] > 0.7
    assert quick[False] < 0.1

    shares = [
        sum(pull["ai_named"] for week in weeks for pull in merged[week]) / sum(len(merged[week]) for week in weeks)
        for weeks in (range(1, 8), range(8, 15), range(15, 22), range(25, 40))
    ]
    assert shares[0] > shares[1] > shares[2] > shares[3] == 0
    assert len(merged[story.holiday_week]) < min(len(merged[week]) for week in SHOWN if week not in told) / 2
    authors = Counter(
        next(number for number, team in enumerate(story.teams) if repository.project.key in team.projects)
        == world.people.members.index(pull.author) % len(story.teams)
        for repository in world.open_repositories
        for pull in repository.pull_requests.values()
        if pull.author in world.people.members
    )
    assert authors[True] > 3 * authors[False]
