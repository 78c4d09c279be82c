"""The unified tables of DX's schema, and what their builds know of changes."""

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY

from dx_dagster.warehouse.schema.columns import (
    exact_seconds,
    flag,
    metadata,
    number,
    number_key,
    reference,
    text,
    time,
    uuid_key,
)

SOURCE = "bitbucket"


def _source() -> Column[object]:
    return text("source", f"{SOURCE}", nullable=False)


def _same_for_ever() -> Column[object]:
    return number_key("Stays the same for ever for the same thing", BigInteger)


changed_rows = Table(
    "changed_rows",
    metadata,
    Column(
        "kind",
        Text,
        primary_key=True,
        comment="pull, review, branch, pipeline, deployment, environment, user, address (of a user) or repository; "
        "or a derived table that measures read, with a date in UTC where that is what changed",
    ),
    Column(
        "id",
        Uuid,
        primary_key=True,
        comment="Id of the row, or of what the changed row belongs to; the workspace's of a date, or of all rows",
    ),
    number("changed_in", "Number of the transaction that last changed it", nullable=False),
    Index("ix_changed_rows_changed_in", "changed_in"),
    comment="What changed last when, by transactions and not by any clock; triggers of the source tables write it",
)

build_marks = Table(
    "build_marks",
    metadata,
    uuid_key("bitbucket_workspaces.id", "workspace_id"),
    Column("asset", Text, primary_key=True, comment="Key of the asset"),
    number("built_to", "Changes of transactions with smaller numbers are in the asset's rows", nullable=False),
    text("rules", "By what it was built: version of the rules, and settings that change rows", nullable=False),
    comment="How far each derived asset is built, by workspace; moves only with the rows it vouches for",
)

repos = Table(
    "repos",
    metadata,
    _same_for_ever(),
    text("default_branch", "Name of the default branch"),
    text("external_id", "Bitbucket's uuid of the repository, with braces"),
    text("name", "Name of the repository"),
    text("organization", "Slug of the workspace"),
    _source(),
    flag("archived", "Null: Bitbucket does not tell"),
    reference("source_table_id", "bitbucket_repositories.id", nullable=False),
    number("repo_group_id", "Null: Bitbucket has no such groups"),
    flag("api_accessible", "Whether the API let us read the repository in the last sync"),
    flag("deleted", "Whether the repository is gone", default=False),
    Index("ix_repos_source_table_id", "source_table_id", unique=True),
    comment="Repositories",
)

pull_requests = Table(
    "pull_requests",
    metadata,
    _same_for_ever(),
    number("additions", "Lines added"),
    text("base_ref", "Branch that the changes go to"),
    flag("bot_authored", "Whether the author is no person; false where the account is gone"),
    text("bot_name", "Name of that bot"),
    text("bot_type", "bot or ai_bot"),
    time("closed", "When it was merged, declined or superseded"),
    time("created", "When it was opened"),
    number("deletions", "Lines removed"),
    number("dx_versioned_team_member_id", "Null: teams have no history here"),
    number("dx_user_id", "Author, dx_users.id"),
    text("external_url", "Address of its page"),
    text("external_id", "Number of the pull request in its repository"),
    text("head_ref", "Branch with the changes"),
    text("merge_commit_sha", "Commit that the merge made"),
    number("merged_by_user_id", "Who merged it, dx_users.id"),
    time("merged", "When it was merged"),
    exact_seconds("open_to_first_approval", "Seconds from ready_for_review_at, else created, to the first approval"),
    exact_seconds("open_to_first_approval_business_hours", "Likewise, within the approver's business hours"),
    exact_seconds("open_to_first_review", "Seconds from ready_for_review_at, else created, to the first review"),
    exact_seconds("open_to_first_review_business_hours", "Likewise, within the reviewer's business hours"),
    exact_seconds("open_to_merge", "Seconds from ready_for_review_at, else created, to merged"),
    exact_seconds("open_to_merge_business_hours", "Likewise, within the author's business hours"),
    text("title", "Title"),
    time("updated", "When it last changed"),
    flag("draft", "Whether it is a draft"),
    flag("reverted", "Whether a later merged pull request of the repository says that it reverts this one"),
    time("reverted_at", "When the first of these was merged"),
    time("ready_for_review_at", "When it was turned from a draft into a reviewable pull request"),
    exact_seconds("weight", "Null: DX works it out with a model of its own"),
    text("classification", "Null: DX works it out with a model of its own"),
    text("tz", "Zone of the author's business hours"),
    flag("deleted", "Whether the pull request or its repository is gone", default=False),
    _source(),
    number("repo_id", "repos.id", nullable=False),
    reference("source_table_id", "bitbucket_pulls.id", nullable=False),
    reference("source_table_repo_id", "bitbucket_repositories.id", nullable=False),
    Index("ix_pull_requests_source_table_id", "source_table_id", unique=True),
    Index("ix_pull_requests_dx_user_id", "dx_user_id"),
    Index("ix_pull_requests_merged", "merged"),
    comment="Pull requests",
)

pull_request_reverts = Table(
    "pull_request_reverts",
    metadata,
    number_key("Unique number", BigInteger),
    reference("source_table_pull_id", "bitbucket_pulls.id of a merged pull request", nullable=False),
    reference("source_table_repo_id", "bitbucket_repositories.id", nullable=False),
    number("number", "Number of the pull request that it says it reverts"),
    text("commit_sha", "Hash of the commit that it says it reverts, 7 to 40 characters"),
    text("title", "Title of the pull request that it says it reverts; where it says neither number nor hash"),
    text("said_in", "Hash of its commit that says commit_sha"),
    Index("ix_pull_request_reverts_source_table_pull_id", "source_table_pull_id"),
    comment="What merged pull requests say that they revert, by their titles and commits; makes pull_requests.reverted",
)

pull_request_reviews = Table(
    "pull_request_reviews",
    metadata,
    _same_for_ever(),
    number("comment_count", "Comments that belong to the review", Integer),
    time("created", "Date of the review"),
    number("dx_user_id", "Reviewer, dx_users.id"),
    text("external_id", "Text from which the review's id is derived"),
    text("external_url", "Address of the review's page"),
    number("pull_request_id", "pull_requests.id", nullable=False),
    number("repo_id", "repos.id", nullable=False),
    _source(),
    reference("source_table_id", "bitbucket_reviews.id", nullable=False),
    reference("source_table_pull_id", "bitbucket_pulls.id", nullable=False),
    reference("source_table_repo_id", "bitbucket_repositories.id", nullable=False),
    exact_seconds(
        "time_since_request", "Seconds from the pull request's ready_for_review_at, else created, to the review"
    ),
    exact_seconds("time_since_request_business_hours", "Likewise, within the reviewer's business hours"),
    text("tz", "Zone of those hours"),
    text("review_type", "APPROVED, DECLINED or COMMENTED"),
    flag("bot_authored", "Whether the reviewer is no person"),
    flag(
        "by_author",
        "Whether the author reviewed with another account; such a review counts in no measure",
        default=False,
    ),
    flag("deleted", "Whether the pull request or its repository is gone", default=False),
    Index("ix_pull_request_reviews_source_table_id", "source_table_id", unique=True),
    Index("ix_pull_request_reviews_pull_request_id", "pull_request_id"),
    Index("ix_pull_request_reviews_dx_user_id", "dx_user_id"),
    Index("ix_pull_request_reviews_created", "created"),
    comment="Reviews of pull requests",
)

pull_request_commits = Table(
    "pull_request_commits",
    metadata,
    _same_for_ever(),
    text("sha", "Hash, 40 characters"),
    time("created", "Date of the commit"),
    text("message", "Message"),
    number("dx_user_id", "Author, dx_users.id"),
    text("external_id", "The hash again"),
    text("external_url", "Address of the commit's page"),
    number("pull_request_id", "pull_requests.id", nullable=False),
    number("repo_id", "repos.id", nullable=False),
    _source(),
    reference("source_table_id", "bitbucket_pull_commits.id", nullable=False),
    reference("source_table_pull_id", "bitbucket_pulls.id", nullable=False),
    reference("source_table_repo_id", "bitbucket_repositories.id", nullable=False),
    flag("bot_authored", "Whether the author is no person; false where the account is unknown"),
    flag("deleted", "Whether the commit no longer belongs to the pull request, or that is gone", default=False),
    Index("ix_pull_request_commits_source_table_id", "source_table_id", unique=True),
    Index("ix_pull_request_commits_pull_request_id", "pull_request_id"),
    comment="Commits of pull requests",
)

pull_request_issues = Table(
    "pull_request_issues",
    metadata,
    _same_for_ever(),
    number("pull_request_id", "pull_requests.id", nullable=False),
    number("issue_id", "Null: no issues are imported"),
    text("issue_key", "Key of the issue, as ABC-123, from the title or the source branch", nullable=False),
    reference("source_table_pull_id", "bitbucket_pulls.id", nullable=False),
    Index("ix_pull_request_issues_pull_request_id_issue_key", "pull_request_id", "issue_key", unique=True),
    comment="Issues that pull requests name",
)

pipeline_sources = Table(
    "pipeline_sources",
    metadata,
    _same_for_ever(),
    text("name", "Name of the repository", nullable=False),
    _source(),
    reference("source_table_id", "bitbucket_repositories.id", nullable=False),
    number("repo_id", "repos.id"),
    Index("ix_pipeline_sources_source_table_id", "source_table_id", unique=True),
    comment="Where pipeline runs come from: one for each repository that has runs",
)

pipeline_runs = Table(
    "pipeline_runs",
    metadata,
    _same_for_ever(),
    text("reference_id", "Our uuid of the run"),
    text("source_id", "Bitbucket's uuid of the run, with braces"),
    number("pipeline_source_id", "pipeline_sources.id", nullable=False),
    text("name", "Name of the repository"),
    text("status", "success, failure, cancelled, running or unknown", nullable=False),
    time("started_at", "When it was created"),
    time("finished_at", "When it ended"),
    time("updated_at", "When it ended, else when it was created: Bitbucket tells no other"),
    number("duration", "Seconds that it ran"),
    text("repository", "Workspace and slug of the repository, as acme/web"),
    text("commit_sha", "Commit that it ran on"),
    text("head_branch", "Branch or tag that it ran on"),
    number("pr_number", "Number of the pull request that it ran for"),
    number("pull_id", "pull_requests.id of that"),
    number("dx_user_id", "Who started it, dx_users.id"),
    text("email", "E-mail address of that person"),
    text("source_url", "Address of its page"),
    number("github_repository_id", "Null"),
    text("github_username", "Null"),
    number("gitlab_project_id", "Null"),
    _source(),
    reference("source_table_id", "bitbucket_pipelines.id", nullable=False),
    number("repo_id", "repos.id"),
    flag("deleted", "Whether the repository is gone", default=False),
    Index("ix_pipeline_runs_source_table_id", "source_table_id", unique=True),
    Index("ix_pipeline_runs_pipeline_source_id_started_at", "pipeline_source_id", "started_at"),
    Index("ix_pipeline_runs_finished_at", "finished_at"),
    comment="Runs of pipelines",
)

deployment_ids = Table(
    "deployment_ids",
    metadata,
    number_key("Number of the deployment: deployments.id", BigInteger),
    reference("source_table_id", "bitbucket_deployments.id", nullable=False),
    Index("ix_deployment_ids_source_table_id", "source_table_id", unique=True),
    comment="Numbers of deployments, kept while one runs again and has no row in deployments",
)

deployments = Table(
    "deployments",
    metadata,
    _same_for_ever(),
    text("reference_id", "Bitbucket's uuid of the deployment, with braces"),
    number("service_id", "repos.id of the repository: it stands for the service"),
    text("repository", "Workspace and slug of the repository, as acme/web"),
    text("commit_sha", "Commit that was deployed"),
    time("attributed_at", "When the deployment was attributed to pull requests; null where it is to none"),
    Column(
        "merge_commit_shas",
        ARRAY(Text),
        nullable=False,
        server_default="{}",
        comment="Merge commits that it is the first to contain",
    ),
    text("environment", "production for environments of that type, else the environment's name"),
    time("deployed_at", "When it ended"),
    flag("success", "Whether it succeeded; false for a stopped one"),
    time(
        "rolled_back_at",
        "When the environment next got another commit, if it had got that one before; null where it has not",
    ),
    text("service", "Name of the repository"),
    text("source_url", "Address of its page"),
    text("source_name", "Bitbucket Pipelines"),
    text("integration_branch", "Null"),
    number("deployment_inference_rule_id", "Null"),
    number("deployment_service_id", "Null"),
    _source(),
    reference("source_table_id", "bitbucket_deployments.id", nullable=False),
    flag("deleted", "Whether the repository is gone", default=False),
    Index("ix_deployments_source_table_id", "source_table_id", unique=True),
    Index("ix_deployments_service_id_deployed_at", "service_id", "deployed_at"),
    Index("ix_deployments_deployed_at", "deployed_at"),
    comment="Deployments that have ended",
)

deployment_pull_requests = Table(
    "deployment_pull_requests",
    metadata,
    Column("deployment_id", BigInteger, primary_key=True, comment="deployments.id"),
    Column("pull_request_id", BigInteger, primary_key=True, comment="pull_requests.id"),
    Index("ix_deployment_pull_requests_pull_request_id", "pull_request_id"),
    comment="Which deployment was the first to contain which merged pull request, for each environment",
)
