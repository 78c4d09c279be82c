"""The figures of the pages of insights: which columns of `weekly_measures` each has, and how it is drawn."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from dx_dagster.warehouse.schema.measures import BUSINESS_HOURS, DURATIONS, PERCENTILES

Unit = Literal["number", "seconds", "business_seconds", "share", "ratio"]
Drawing = Literal["minutes", "hours", "days", "bars", "lines", "shares"]
DRAWINGS: tuple[Drawing, ...] = get_args(Drawing)


@dataclass(frozen=True)
class Measure:
    """One column of a figure.

    Attributes:
        column: of `weekly_measures`, and of the CSV.
        label: the heading of the column, and the name in the legend.
        unit: what the value is. Numbers are counts of rows. Seconds of business hours make no days.
        rows: the column with the number of rows that the value is over; empty for a count.
        is_drawn: whether the chart shows it.
        sql: the value, where no column has it.
    """

    column: str
    label: str
    unit: Unit = "number"
    rows: str = ""
    is_drawn: bool = True
    sql: str = ""


@dataclass(frozen=True)
class Figure:
    """A chart and its table.

    Attributes:
        drawing: how the chart is drawn; durations are in a unit that suits them.
    """

    name: str
    title: str
    meaning: str
    drawing: Literal["durations", "bars", "lines", "shares"]
    measures: tuple[Measure, ...]

    @property
    def counts(self) -> frozenset[str]:
        """Columns of which a small number makes a figure of this row uncertain."""
        return frozenset(measure.rows for measure in self.measures if measure.rows)


@dataclass(frozen=True)
class Topic:
    """A page of figures."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    intro: str = ""


_MEANINGS = {"review_time": "from the first review by another person to the merge"}
_LABELS = {"median": "Median", "p75": "75th percentile", "p90": "90th percentile"}


def _durations(name: str, title: str, *, business_hours: bool) -> Figure:
    count = f"{name}_count"
    column = f"{name}{BUSINESS_HOURS}" if business_hours else name
    unit: Unit = "business_seconds" if business_hours else "seconds"
    measures = (Measure(f"{column}_{one}", _LABELS[one], unit, count) for one in PERCENTILES)
    meaning = f"Time {_MEANINGS.get(name, DURATIONS[name])}{', within business hours' if business_hours else ''}."
    counted = Measure(count, "Pull requests", is_drawn=False)
    return Figure(name.replace("_", "-"), title, meaning, "durations", (counted, *measures))


_DEPLOYMENTS = Figure(
    "deployments",
    "Deployment frequency",
    "Successful deployments to production in each week.",
    "bars",
    (Measure("deployment_count", "Deployments"),),
)
_FAILED_DEPLOYMENTS = Figure(
    "failed-deployments",
    "Failed deployments",
    "Deployments to production that ended without success. Teams have none: nothing says whose they are.",
    "bars",
    (Measure("failed_deployment_count", "Failed deployments"),),
)
_CHANGE_FAILURES = Figure(
    "change-failure-rate",
    "Change-failure rate",
    "Share of deployments that were rolled back, or of which a pull request was reverted, within 7 days.",
    "shares",
    (
        Measure("deployment_count", "Deployments", is_drawn=False),
        Measure("change_failure_count", "Failed later", is_drawn=False),
        Measure("change_failure_rate", "Change-failure rate", "share", "deployment_count"),
    ),
)
_THROUGHPUT = Figure(
    "throughput",
    "Throughput",
    "Pull requests that people merged. Per engineer: divided by the number of people who opened them.",
    "bars",
    (
        Measure("merged_count", "Merged"),
        Measure("engineer_count", "People", is_drawn=False),
        Measure("throughput_per_engineer", "Per engineer", "ratio", "engineer_count", is_drawn=False),
    ),
)
_BOTS = Figure(
    "bots",
    "Pull requests of bots",
    "Share of bots in all merged pull requests. They count in no other figure.",
    "shares",
    (
        Measure("bot_merged_count", "Merged by bots", is_drawn=False),
        Measure("merged_and_bot_merged_count", "All merged", is_drawn=False, sql="m.merged_count + m.bot_merged_count"),
        Measure("bot_merged_share", "Share of bots", "share", "merged_and_bot_merged_count"),
    ),
)
_REWORK = Figure(
    "rework",
    "Reverted and reviewed again",
    "Merged pull requests that a later one reverts, and those reviewed again after a change request.",
    "lines",
    (Measure("reverted_count", "Reverted"), Measure("re_reviewed_count", "Reviewed again")),
)
_ASSISTANTS = Figure(
    "ai-assistants",
    "AI assistants",
    "Merged pull requests whose commits name an AI assistant, and those with an AI account as an author.",
    "lines",
    (Measure("ai_named_count", "Named in a commit"), Measure("ai_account_count", "AI account")),
)
_REVIEWS = Figure(
    "reviews",
    "Reviews",
    "Reviews by people and by bots. Bots count in no other figure.",
    "lines",
    (
        Measure("review_count", "By people"),
        Measure("bot_review_count", "By bots"),
        Measure("review_and_bot_review_count", "All", is_drawn=False, sql="m.review_count + m.bot_review_count"),
        Measure("bot_review_share", "Share of bots", "share", "review_and_bot_review_count", is_drawn=False),
    ),
)
_UNREVIEWED = Figure(
    "without-review",
    "Merged without review",
    "Share of merged pull requests that no other person reviewed before the merge.",
    "shares",
    (
        Measure("merged_count", "Merged", is_drawn=False),
        Measure("merged_without_review_count", "Without review", is_drawn=False),
        Measure("merged_without_review_share", "Share without review", "share", "merged_count"),
    ),
)
_PIPELINES = Figure(
    "pipelines",
    "Pipeline failure rate",
    "Share of ended runs of pipelines that failed. Stopped runs count as neither.",
    "shares",
    (
        Measure("pipeline_count", "Runs", is_drawn=False),
        Measure("pipeline_failure_count", "Failed", is_drawn=False),
        Measure("pipeline_failure_rate", "Failure rate", "share", "pipeline_count"),
    ),
)
_PIPELINE_DURATION = Figure(
    "pipeline-duration",
    "Pipeline duration",
    "How long runs of pipelines took.",
    "durations",
    (
        Measure("pipeline_duration_count", "Runs", is_drawn=False),
        *(
            Measure(f"pipeline_duration_{one}", _LABELS[one], "seconds", "pipeline_duration_count")
            for one in PERCENTILES
        ),
    ),
)
_GINI = Figure(
    "review-load",
    "How evenly reviews are spread",
    "Gini coefficient of reviews over the people who reviewed or had something merged: "
    "0% where all review as much, towards 100% where one person reviews everything.",
    "shares",
    (
        Measure("review_load_count", "People", is_drawn=False),
        Measure("review_load_gini", "Gini coefficient", "share", "review_load_count"),
    ),
)
_REVIEWERS = Figure(
    "reviewers",
    "People who review",
    "Share of these people who gave a review.",
    "shares",
    (
        Measure("review_load_count", "People", is_drawn=False),
        Measure("reviewer_count", "Reviewers", is_drawn=False),
        Measure(
            "reviewer_share",
            "Share who review",
            "share",
            "review_load_count",
            sql="m.reviewer_count::float8 / NULLIF(m.review_load_count, 0)",
        ),
    ),
)
_REVIEWS_EACH = Figure(
    "reviews-per-reviewer",
    "Reviews per reviewer",
    "Reviews by people, divided by the number of people who gave them.",
    "bars",
    (
        Measure("review_count", "Reviews", is_drawn=False),
        Measure("reviewer_count", "Reviewers", is_drawn=False),
        Measure(
            "reviews_per_reviewer",
            "Reviews per reviewer",
            "ratio",
            "reviewer_count",
            sql="m.review_count::float8 / NULLIF(m.reviewer_count, 0)",
        ),
    ),
)
_WHY_NO_RANKING = (
    "This page shows how work is spread, without names. A ranking by output would reward many small pull requests and "
    "hasty reviews, and ignore help, design and care. People who are ranked by a figure work for the figure."
)


def _topics(*, business_hours: bool) -> Iterator[Topic]:
    def durations(name: str, title: str) -> Figure:
        return _durations(name, title, business_hours=business_hours)

    lead = durations("lead_time", "Lead time")
    cycle = durations("cycle_time", "Cycle time")
    pickup, review = durations("pickup_time", "Pickup time"), durations("review_time", "Review time")
    deploy = durations("deploy_time", "Deploy time")
    yield Topic("", "Overview", (_DEPLOYMENTS, lead, _CHANGE_FAILURES, cycle))
    coding = durations("coding_time", "Coding time")
    yield Topic("pull-requests", "Pull requests", (_THROUGHPUT, cycle, coding, review, _REWORK, _ASSISTANTS, _BOTS))
    yield Topic("reviews", "Reviews", (_REVIEWS, pickup, review, _UNREVIEWED))
    yield Topic(
        "delivery",
        "Pipelines and deployments",
        (_DEPLOYMENTS, _FAILED_DEPLOYMENTS, deploy, _CHANGE_FAILURES, _PIPELINES, _PIPELINE_DURATION),
    )
    yield Topic("load", "People's load", (_GINI, _REVIEWERS, _REVIEWS_EACH), _WHY_NO_RANKING)


TOPICS: Mapping[bool, Mapping[str, Topic]] = {
    business_hours: {topic.name: topic for topic in _topics(business_hours=business_hours)}
    for business_hours in (False, True)
}
"""The pages by name, with durations in all hours (False) or in business hours (True)."""
