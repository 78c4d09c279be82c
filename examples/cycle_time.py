"""Draws the phases of merged pull requests by repository, from the first commit to the merge.

Example: python examples/cycle_time.py cycle-time.svg

DX_DATABASE_URL is the address of the database; `eval "$(dx-dagster env)"` sets it. Only `pull_request_measures` and
`bitbucket_repositories` are read, so an address of `dx-dagster env --database` is enough. The file may end in .svg,
.png or .html.
"""

import os
import sys

import altair as alt
import polars as pl
import psycopg

PHASES = {"coding_time": "Coding", "pickup_time": "Pickup", "review_time": "Review"}
FEW = 5  # a median over fewer pull requests says little
# Of people, and merged within half a year. Seconds are converted to float8: polars would round `numeric`.
QUERY = """
    SELECT r.slug AS repository, m.merged, m.coding_time::float8, m.pickup_time::float8, m.review_time::float8
    FROM pull_request_measures m JOIN bitbucket_repositories r ON r.id = m.source_table_repo_id
    WHERE NOT m.bot_authored AND m.merged >= now() - %(within)s::interval
    ORDER BY m.merged"""
# Without a schema, polars looks at the first rows, and takes a column that is empty there for one without a type.
SCHEMA = pl.Schema(
    {
        "repository": pl.String(),
        "merged": pl.Datetime(time_zone="UTC"),
        "coding_time": pl.Float64(),
        "pickup_time": pl.Float64(),
        "review_time": pl.Float64(),
    }
)


def read(address: str, within: str) -> pl.DataFrame:
    """One row for each pull request that was merged within the interval, such as `26 weeks`."""
    with psycopg.connect(address) as connection:
        connection.execute("SET TIME ZONE 'UTC'")  # times come in the zone of the session
        return pl.read_database(
            QUERY, connection, schema_overrides=SCHEMA, execute_options={"params": {"within": within}}
        ).cast(SCHEMA)


def by_repository(pulls: pl.DataFrame) -> pl.DataFrame:
    """The median hours of each phase, of the repositories with enough pull requests, slowest first."""
    return (
        pulls.group_by("repository")
        .agg(pl.len().alias("merged"), *((pl.col(phase).median() / 3600).alias(name) for phase, name in PHASES.items()))
        .filter(pl.col("merged") >= FEW)
        .sort(pl.sum_horizontal(PHASES.values()), descending=True)
    )


def chart(repositories: pl.DataFrame) -> alt.Chart:
    """A bar for each repository, of the medians of its phases."""
    phases = repositories.unpivot(
        list(PHASES.values()), index=["repository", "merged"], variable_name="phase", value_name="hours"
    )
    places = {name: place for place, name in enumerate(PHASES.values())}
    phases = phases.drop_nulls().with_columns(pl.col("phase").replace_strict(places).alias("place"))
    drawn: alt.Chart = (
        alt.Chart(phases, title="Phases of merged pull requests, median hours")
        .mark_bar()
        .encode(
            x=alt.X("hours:Q", title="hours"),
            y=alt.Y("repository:N", title=None, sort=repositories["repository"].to_list()),
            color=alt.Color("phase:N", title=None, sort=list(PHASES.values()), scale=alt.Scale(scheme="viridis")),
            order=alt.Order("place:Q"),
            tooltip=["repository", "phase", alt.Tooltip("hours:Q", format=".1f"), "merged"],
        )
    )
    return drawn


def main() -> None:
    if len(sys.argv) != 2 or "DX_DATABASE_URL" not in os.environ:  # noqa: PLR2004 - the name of the file
        sys.exit(__doc__)
    repositories = by_repository(read(os.environ["DX_DATABASE_URL"], "26 weeks"))
    if repositories.is_empty():
        sys.exit(f"No repository has {FEW} pull requests that were merged within 26 weeks.")
    with pl.Config(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, float_precision=1, tbl_rows=20):
        print(repositories)
    chart(repositories).save(sys.argv[1])


if __name__ == "__main__":
    main()
