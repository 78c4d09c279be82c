"""Requests: of the rolling window, and by status."""

from sqlalchemy import Column, Integer, Table, Text

from dx_dagster.warehouse.schema.columns import foreign, json, metadata, number, time

budgets = Table(
    "budgets",
    metadata,
    Column(
        "name", Text, primary_key=True, comment="credential:ID of an access token, account:ADDRESS for all API tokens"
    ),
    number("request_limit", "Requests a window, as Bitbucket said; null until then", Integer),
    json("spent", "Requests of the window: [end of a sixtieth of it in seconds since 1970, how many], …", "[]"),
    json(
        "leases",
        "Requests that processes have reserved: {process: [how many, second by which they will have ended]}",
        "{}",
    ),
    time("rests_until", "Until when nothing is sent, after a 429"),
    time("careful_until", "Until when one request is sent at a time, after that"),
    time("near_limit_at", "When Bitbucket last said that less than a fifth is left"),
    comment="Requests that each budget of Bitbucket has used in the rolling window, shared by all processes",
)

request_counts = Table(
    "request_counts",
    metadata,
    foreign("credential_id", "credentials.id", primary_key=True),
    Column("status", Text, primary_key=True, comment="Status of the answers; none where there was no answer"),
    number("requests", "How many, ever since", nullable=False),
    comment="How many requests each credential has sent, by the status of their answers",
)
