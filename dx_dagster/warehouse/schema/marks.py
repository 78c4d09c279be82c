"""How far an import is, and which process may write it."""

from sqlalchemy import ARRAY, BigInteger, Column, Index, Table, Text
from sqlalchemy.dialects.postgresql import INTERVAL

from dx_dagster.warehouse.schema.columns import (
    flag,
    metadata,
    number,
    number_key,
    reference,
    text,
    time,
    time_of_insert,
    uuid_key,
)

sync_marks = Table(
    "sync_marks",
    metadata,
    uuid_key("bitbucket_repositories.id", "repository_id"),
    Column("kind", Text, primary_key=True, comment="pullrequests, activity, commits, pipelines or deployments"),
    time("synced_to", "All changes up to here are stored; null before the first walk ended"),
    text("walk_cursor", "Where the walk under way goes on; null when none is under way"),
    time("walk_head", "What synced_to becomes when that walk ends"),
    time("walk_begun_at", "When the walk under way, or the last one, began"),
    time("full_head", "What walk_head was in the last walk over everything"),
    time("bound", "Everything from here on is stored (--since); null for all"),
    time("walk_bound", "What bound becomes when the walk under way ends"),
    time("since", "From when on the feed tells everything (activity)"),
    text("older", "Where the feed goes on with entries before the bound (activity)"),
    text(
        "head",
        "Head that the walk under way, or the last one, began at (commits); last transaction that changed one of its "
        "pipelines (deployments)",
    ),
    text("branch", "Branch that was walked (commits)"),
    text(
        "checked",
        "What was last found up to date: the repository's version (commits), day and listed pull requests (activity), "
        "head of the mark (deployments)",
    ),
    time("asked_at", "When the requests began that last asked it to the end, or were refused"),
    time(
        "listed_at",
        "When all open pull requests, or the pipelines or deployments of the last days, were last listed again",
    ),
    text("fallback", "Why the short way does not work here, when it does not"),
    comment="How far each kind of thing is imported, by repository; moves only with the rows it vouches for",
)

pull_marks = Table(
    "pull_marks",
    metadata,
    uuid_key("bitbucket_pulls.id", "pull_id"),
    reference("repository_id", "bitbucket_repositories.id", nullable=False),
    number("number", "Number of the pull request", nullable=False),
    time("activity_synced_to", "updated_at for which its own activity was last asked"),
    flag("activity_stale", "Whether its own activity must be asked", default=False),
    flag(
        "opinion_unseen",
        "Whether the feed told of an opinion that the list of pull requests did not show yet",
        default=False,
    ),
    time("comments_synced_to", "updated_at for which its comments are complete"),
    text(
        "commits_synced_for",
        "Source, target and state of the target for which its commits are complete, or unconfirmed behind them",
    ),
    text("hashes_resolved_for", "Short hashes that were asked for one by one"),
    time("refused_since", "When Bitbucket first refused something of it; null when it did not"),
    time("refused_at", "When Bitbucket last refused something of it"),
    time("refused_for", "updated_at of the pull request that was refused then"),
    text("size_for", "Source and target for which its size was settled, known or not"),
    time("size_refused_since", "When Bitbucket first refused its size; null when it did not"),
    time("size_refused_at", "When Bitbucket last refused its size"),
    text("size_refused_for", "Source and target of the pull request then"),
    Index("ix_pull_marks_repository_id", "repository_id"),
    comment="How far each pull request is imported; moves only with the rows it vouches for",
)

absence_checks = Table(
    "absence_checks",
    metadata,
    uuid_key("id of a repository, a user or a pull request", "subject_id"),
    time("missing_since", "When a listing first was found to lack it", nullable=False),
    time("asked_at", "When Bitbucket was last asked for it by itself", nullable=False),
    comment="What suspicious listings lacked: asked for by itself, a few at each sync, those asked longest ago first",
)

import_locks = Table(
    "import_locks",
    metadata,
    Column("workspace", Text, primary_key=True, comment="Slug of the workspace, in lower case"),
    reference(
        "token",
        "Of the import that last took the workspace's lock; another one's transactions are taken back",
        nullable=False,
    ),
    text("taken_by", "Its process, as PID@HOST", nullable=False),
    time_of_insert("taken_at", "When it took the lock"),
    comment="Which import of a workspace may write; the lock itself is an advisory one",
)

sync_sessions = Table(
    "sync_sessions",
    metadata,
    Column("workspace", Text, primary_key=True, comment="Slug of the workspace, in lower case"),
    time_of_insert("started_at", "When it began, before its first request"),
    time_of_insert("alive_at", "When a process of it last said that it works"),
    Column(
        "paused",
        INTERVAL,
        nullable=False,
        server_default="0",
        comment="How long no process worked in it, three minutes at least for each kill",
    ),
    text("rules", "Release whose process began it; another release begins a new one", nullable=False),
    Column("steps", ARRAY(Text), nullable=False, server_default="{}", comment="Steps that ended in it"),
    Column(
        "agreed",
        ARRAY(Text),
        nullable=False,
        server_default="{}",
        comment="Kinds of pull request, once for each whose commits were as the history proves them",
    ),
    comment="Syncs under way, and killed ones that the next sync may continue; a sync that ends deletes its row",
)

sync_session_commits = Table(
    "sync_session_commits",
    metadata,
    number_key("Number of the answer", BigInteger),
    text("workspace", "Slug of the workspace, in lower case", nullable=False),
    reference("repository_id", "Repository of the commits", nullable=False),
    text("commits", "The commits, as JSON that Bitbucket returned, and which jsonb would refuse", nullable=False),
    comment="Commits that a sync has fetched before it knows of which pull requests they are; it removes them then",
)
