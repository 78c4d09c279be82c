"""The tables that say how far an import is, and whose credentials it uses."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from dx_dagster.warehouse.schema.bitbucket import metadata

sync_marks = Table(
    "sync_marks",
    metadata,
    Column("repository_id", Uuid, primary_key=True, comment="bitbucket_repositories.id"),
    Column("kind", Text, primary_key=True, comment="pullrequests, activity, commits or pipelines"),
    Column(
        "synced_to",
        DateTime(timezone=True),
        comment="All changes up to here are stored; null before the first walk ended",
    ),
    Column("walk_cursor", Text, comment="Where the walk under way goes on; null when none is under way"),
    Column("walk_head", DateTime(timezone=True), comment="What synced_to becomes when that walk ends"),
    Column("full_head", DateTime(timezone=True), comment="What walk_head was in the last walk over everything"),
    Column("bound", DateTime(timezone=True), comment="Everything from here on is stored (--since); null for all"),
    Column("walk_bound", DateTime(timezone=True), comment="What bound becomes when the walk under way ends"),
    Column("since", DateTime(timezone=True), comment="From when on the feed tells everything (activity)"),
    Column("older", Text, comment="Where the feed goes on with entries before the bound (activity)"),
    Column("head", Text, comment="Head that the walk under way, or the last one, began at (commits)"),
    Column("branch", Text, comment="Branch that was walked (commits)"),
    Column("checked", Text, comment="Version of the repository that was last found up to date (commits)"),
    Column("asked_at", DateTime(timezone=True), comment="When it was last asked to the end, or refused"),
    Column(
        "listed_at",
        DateTime(timezone=True),
        comment="When all open pull requests, or the pipelines of the last days, were last listed again",
    ),
    Column("fallback", Text, comment="Why the short way does not work here, when it does not"),
    comment="How far each kind of thing is imported, by repository; moves only with the rows it vouches for",
)

pull_marks = Table(
    "pull_marks",
    metadata,
    Column("pull_id", Uuid, primary_key=True, comment="bitbucket_pulls.id"),
    Column("repository_id", Uuid, nullable=False, comment="bitbucket_repositories.id"),
    Column("number", BigInteger, nullable=False, comment="Number of the pull request"),
    Column(
        "activity_synced_to", DateTime(timezone=True), comment="updated_at for which its own activity was last asked"
    ),
    Column(
        "activity_stale",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether its own activity must be asked",
    ),
    Column(
        "opinion_unseen",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether the feed told of an opinion that the list of pull requests did not show yet",
    ),
    Column("comments_synced_to", DateTime(timezone=True), comment="updated_at for which its comments are complete"),
    Column("commits_synced_for", Text, comment="Source commit and target branch for which its commits are complete"),
    Column("hashes_resolved_for", Text, comment="Short hashes that were asked for one by one"),
    Column(
        "refused_since",
        DateTime(timezone=True),
        comment="When Bitbucket first refused something of it; null when it did not",
    ),
    Column("refused_at", DateTime(timezone=True), comment="When Bitbucket last refused something of it"),
    Column("refused_for", DateTime(timezone=True), comment="updated_at of the pull request that was refused then"),
    Index("ix_pull_marks_repository_id", "repository_id"),
    comment="How far each pull request is imported; moves only with the rows it vouches for",
)

absence_checks = Table(
    "absence_checks",
    metadata,
    Column("subject_id", Uuid, primary_key=True, comment="id of a repository, a user or a pull request"),
    Column(
        "missing_since", DateTime(timezone=True), nullable=False, comment="When a listing first was found to lack it"
    ),
    Column(
        "asked_at", DateTime(timezone=True), nullable=False, comment="When Bitbucket was last asked for it by itself"
    ),
    comment="What suspicious listings lacked: asked for by itself, a few at each sync, those asked longest ago first",
)

connections = Table(
    "connections",
    metadata,
    Column("id", Integer, Identity(), primary_key=True, comment="Number of the connection"),
    Column("type", Text, nullable=False, comment="bitbucket, bitbucket_pipelines or jira_cloud"),
    Column("workspace", Text, nullable=False, comment="Slug of the workspace"),
    Column("name", Text, nullable=False, comment="Display name"),
    Column("state", Text, nullable=False, comment="verified or failed: how the last verification ended"),
    Column("settings", JSONB, nullable=False, server_default=text("'{}'"), comment="Settings that are no secrets"),
    Column("disabled_at", DateTime(timezone=True), comment="When it was disabled"),
    Column("disabled_reason", Text, comment="Why it was disabled"),
    Column("last_synced_at", DateTime(timezone=True), comment="When a sync last succeeded"),
    Column("last_error", Text, comment="Why the last sync could read nothing; null when it could"),
    Column("failed_at", DateTime(timezone=True), comment="When a sync last could read nothing; null once one could"),
    Column("failing_since", DateTime(timezone=True), comment="When the first of these syncs did; null once one could"),
    Column(
        "created_at", DateTime(timezone=True), nullable=False, server_default=func.now(), comment="When it was made"
    ),
    Column(
        "updated_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.now(),
        comment="When it was last changed",
    ),
    Column("deleted_at", DateTime(timezone=True), comment="When it was removed"),
    Index(
        "uq_connections_workspace_type",
        text("lower(workspace)"),
        "type",
        unique=True,
        postgresql_where=text("deleted_at IS NULL"),
    ),
    comment="Sources of data, with their settings",
)

credentials = Table(
    "credentials",
    metadata,
    Column("id", Integer, Identity(), primary_key=True, comment="Number of the credential"),
    Column("connection_id", Integer, ForeignKey("connections.id"), nullable=False, comment="connections.id"),
    Column("type", Text, nullable=False, comment="access_token or api_token"),
    Column("label", Text, nullable=False, comment="Display name"),
    Column("settings", JSONB, nullable=False, server_default=text("'{}'"), comment="Settings that are no secrets"),
    Column("secret", Text, nullable=False, comment="The secret, encrypted and bound to this row"),
    Column("hint", Text, nullable=False, comment="Last four characters of the secret"),
    Column("expiration_date", Date, comment="Day on which it expires"),
    Column("disabled_at", DateTime(timezone=True), comment="When it was taken out of the pool"),
    Column("disabled_reason", Text, comment="Why it was taken out"),
    Column(
        "created_at", DateTime(timezone=True), nullable=False, server_default=func.now(), comment="When it was added"
    ),
    Column(
        "updated_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.now(),
        comment="When it was last changed",
    ),
    Column("deleted_at", DateTime(timezone=True), comment="When it was removed"),
    Index("ix_credentials_connection_id", "connection_id"),
    comment="Secrets that draw on Bitbucket's budgets",
)

import_locks = Table(
    "import_locks",
    metadata,
    Column("workspace", Text, primary_key=True, comment="Slug of the workspace, in lower case"),
    Column(
        "token",
        Uuid,
        nullable=False,
        comment="Of the import that last took the workspace's lock; another one's transactions are taken back",
    ),
    Column("taken_by", Text, nullable=False, comment="Its process, as PID@HOST"),
    Column(
        "taken_at", DateTime(timezone=True), nullable=False, server_default=func.now(), comment="When it took the lock"
    ),
    comment="Which import of a workspace may write; the lock itself is an advisory one",
)

budgets = Table(
    "budgets",
    metadata,
    Column(
        "name", Text, primary_key=True, comment="credential:ID of an access token, account:ADDRESS for all API tokens"
    ),
    Column("request_limit", Integer, comment="Requests a window, as Bitbucket said; null until then"),
    Column(
        "spent",
        JSONB,
        nullable=False,
        server_default=text("'[]'"),
        comment="Requests of the window: [end of a sixtieth of it in seconds since 1970, how many], …",
    ),
    Column(
        "leases",
        JSONB,
        nullable=False,
        server_default=text("'{}'"),
        comment="Requests that processes have reserved: {process: [how many, second by which they will have ended]}",
    ),
    Column("rests_until", DateTime(timezone=True), comment="Until when nothing is sent, after a 429"),
    Column("careful_until", DateTime(timezone=True), comment="Until when one request is sent at a time, after that"),
    Column("near_limit_at", DateTime(timezone=True), comment="When Bitbucket last said that less than a fifth is left"),
    comment="Requests that each budget of Bitbucket has used in the rolling window, shared by all processes",
)
