"""Measures of pull requests and weeks, when merges were reverted and deployments rolled back, and notes for measures."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0022"
down_revision: str | None = "0021"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

NOTE_ATTRIBUTED_PULLS = """
    CREATE FUNCTION public.note_attributed_pulls() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_TABLE_NAME = 'deployments' THEN
            INSERT INTO public.changed_rows (kind, id, changed_in)
            SELECT DISTINCT 'deployment_pull_requests', t.source_table_id, pg_current_xact_id()::text::bigint
            FROM changed JOIN public.deployment_pull_requests a ON a.deployment_id = changed.id
            JOIN public.pull_requests t ON t.id = a.pull_request_id
            ORDER BY 2 ON CONFLICT (kind, id) DO UPDATE SET changed_in = EXCLUDED.changed_in
            WHERE changed_rows.changed_in <> EXCLUDED.changed_in;
        ELSE
            INSERT INTO public.changed_rows (kind, id, changed_in)
            SELECT DISTINCT 'deployment_pull_requests', t.source_table_id, pg_current_xact_id()::text::bigint
            FROM changed JOIN public.pull_requests t ON t.id = changed.pull_request_id
            ORDER BY 2 ON CONFLICT (kind, id) DO UPDATE SET changed_in = EXCLUDED.changed_in
            WHERE changed_rows.changed_in <> EXCLUDED.changed_in;
        END IF;
        RETURN NULL;
    END $$"""
NOTE_CHANGED_DAYS = """
    CREATE FUNCTION public.note_changed_days() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE differing text := format('SELECT %s FROM changed', TG_ARGV[1]); BEGIN
        IF EXISTS (SELECT FROM changed) THEN
            IF TG_OP = 'UPDATE' THEN
                differing := format('(SELECT %1$s FROM changed EXCEPT SELECT %1$s FROM before)
                    UNION ALL (SELECT %1$s FROM before EXCEPT SELECT %1$s FROM changed)', TG_ARGV[1]);
            END IF;
            EXECUTE format('
                INSERT INTO public.changed_rows (kind, id, changed_in)
                SELECT DISTINCT %L || to_char(days.at AT TIME ZONE ''UTC'', '' YYYY-MM-DD''), r.workspace_id,
                    pg_current_xact_id()::text::bigint
                FROM (%s) differing CROSS JOIN LATERAL unnest(ARRAY[%s]) days (at)
                JOIN public.repos o ON o.id = differing.%I
                JOIN public.bitbucket_repositories r ON r.id = o.source_table_id
                WHERE days.at IS NOT NULL
                ORDER BY 1, 2 ON CONFLICT (kind, id) DO UPDATE SET changed_in = EXCLUDED.changed_in
                WHERE changed_rows.changed_in <> EXCLUDED.changed_in',
                TG_TABLE_NAME, differing, TG_ARGV[2], TG_ARGV[0]);
        END IF;
        RETURN NULL;
    END $$"""
TRIGGERS = (
    "CREATE TRIGGER note_insert AFTER INSERT ON pull_requests REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_rows('pull_requests', 'source_table_id')",
    "CREATE TRIGGER note_update AFTER UPDATE ON pull_requests REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_rows('pull_requests', 'source_table_id')",
    "CREATE TRIGGER note_delete AFTER DELETE ON pull_requests REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_rows('pull_requests', 'source_table_id')",
    "CREATE TRIGGER note_insert AFTER INSERT ON pull_request_reviews REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_rows('pull_request_reviews', 'source_table_pull_id')",
    "CREATE TRIGGER note_update AFTER UPDATE ON pull_request_reviews REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_rows('pull_request_reviews', 'source_table_pull_id')",
    "CREATE TRIGGER note_delete AFTER DELETE ON pull_request_reviews REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_rows('pull_request_reviews', 'source_table_pull_id')",
    "CREATE TRIGGER note_days_at_insert AFTER INSERT ON pull_request_measures REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_days('repo_id', 'pull_request_id, repo_id, dx_user_id, bot_authored, merged, deployed_at, reverted_at, re_reviewed, merged_without_review, reverted, ai_named, ai_account, coding_time, coding_time_business_hours, pickup_time, pickup_time_business_hours, review_time, review_time_business_hours, deploy_time, deploy_time_business_hours, cycle_time, cycle_time_business_hours, lead_time, lead_time_business_hours', 'merged, deployed_at, reverted_at')",
    "CREATE TRIGGER note_days_at_update AFTER UPDATE ON pull_request_measures REFERENCING OLD TABLE AS before NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_days('repo_id', 'pull_request_id, repo_id, dx_user_id, bot_authored, merged, deployed_at, reverted_at, re_reviewed, merged_without_review, reverted, ai_named, ai_account, coding_time, coding_time_business_hours, pickup_time, pickup_time_business_hours, review_time, review_time_business_hours, deploy_time, deploy_time_business_hours, cycle_time, cycle_time_business_hours, lead_time, lead_time_business_hours', 'merged, deployed_at, reverted_at')",
    "CREATE TRIGGER note_days_at_delete AFTER DELETE ON pull_request_measures REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_days('repo_id', 'pull_request_id, repo_id, dx_user_id, bot_authored, merged, deployed_at, reverted_at, re_reviewed, merged_without_review, reverted, ai_named, ai_account, coding_time, coding_time_business_hours, pickup_time, pickup_time_business_hours, review_time, review_time_business_hours, deploy_time, deploy_time_business_hours, cycle_time, cycle_time_business_hours, lead_time, lead_time_business_hours', 'merged, deployed_at, reverted_at')",
    "CREATE TRIGGER note_days_at_insert AFTER INSERT ON pull_request_reviews REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_days('repo_id', 'id, repo_id, dx_user_id, bot_authored, created', 'created')",
    "CREATE TRIGGER note_days_at_update AFTER UPDATE ON pull_request_reviews REFERENCING OLD TABLE AS before NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_days('repo_id', 'id, repo_id, dx_user_id, bot_authored, created', 'created')",
    "CREATE TRIGGER note_days_at_delete AFTER DELETE ON pull_request_reviews REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_days('repo_id', 'id, repo_id, dx_user_id, bot_authored, created', 'created')",
    "CREATE TRIGGER note_days_at_insert AFTER INSERT ON pipeline_runs REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_days('repo_id', 'id, repo_id, dx_user_id, status, duration, finished_at', 'finished_at')",
    "CREATE TRIGGER note_days_at_update AFTER UPDATE ON pipeline_runs REFERENCING OLD TABLE AS before NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_days('repo_id', 'id, repo_id, dx_user_id, status, duration, finished_at', 'finished_at')",
    "CREATE TRIGGER note_days_at_delete AFTER DELETE ON pipeline_runs REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_days('repo_id', 'id, repo_id, dx_user_id, status, duration, finished_at', 'finished_at')",
    "CREATE TRIGGER note_days_at_insert AFTER INSERT ON deployments REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_days('service_id', 'id, service_id, environment, success, rolled_back_at, merge_commit_shas, deployed_at', 'deployed_at')",
    "CREATE TRIGGER note_days_at_update AFTER UPDATE ON deployments REFERENCING OLD TABLE AS before NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_days('service_id', 'id, service_id, environment, success, rolled_back_at, merge_commit_shas, deployed_at', 'deployed_at')",
    "CREATE TRIGGER note_days_at_delete AFTER DELETE ON deployments REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_days('service_id', 'id, service_id, environment, success, rolled_back_at, merge_commit_shas, deployed_at', 'deployed_at')",
    "CREATE TRIGGER note_update AFTER UPDATE ON deployments REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_attributed_pulls()",
    "CREATE TRIGGER note_insert AFTER INSERT ON deployment_pull_requests REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_attributed_pulls()",
    "CREATE TRIGGER note_delete AFTER DELETE ON deployment_pull_requests REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_attributed_pulls()",
)


def upgrade() -> None:
    op.create_table("pull_request_measures",
    sa.Column("pull_request_id", sa.BigInteger(), autoincrement=False, nullable=False, comment="pull_requests.id"),
    sa.Column("repo_id", sa.BigInteger(), nullable=False, comment="repos.id"),
    sa.Column("dx_user_id", sa.BigInteger(), nullable=True, comment="Author, dx_users.id"),
    sa.Column("bot_authored", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether the author is no person; false where the account is gone"),
    sa.Column("merged", sa.DateTime(timezone=True), nullable=True, comment="When it was merged"),
    sa.Column("week", sa.Date(), nullable=True, comment="Monday of the week of the merge, in DX_TIME_ZONE"),
    sa.Column("deployed_at", sa.DateTime(timezone=True), nullable=True, comment="When it was first deployed to production with success"),
    sa.Column("coding_time", sa.DOUBLE_PRECISION(), nullable=True, comment="Seconds from the first commit to the opening"),
    sa.Column("coding_time_business_hours", sa.DOUBLE_PRECISION(), nullable=True, comment="Likewise, within the author's business hours"),
    sa.Column("pickup_time", sa.DOUBLE_PRECISION(), nullable=True, comment="Seconds from ready for review, else the opening, to the first review by another person"),
    sa.Column("pickup_time_business_hours", sa.DOUBLE_PRECISION(), nullable=True, comment="Likewise, within the reviewer's business hours"),
    sa.Column("review_time", sa.DOUBLE_PRECISION(), nullable=True, comment="Seconds from that review to the merge"),
    sa.Column("review_time_business_hours", sa.DOUBLE_PRECISION(), nullable=True, comment="Likewise, within the author's business hours"),
    sa.Column("deploy_time", sa.DOUBLE_PRECISION(), nullable=True, comment="Seconds from the merge to the first successful deployment to production"),
    sa.Column("deploy_time_business_hours", sa.DOUBLE_PRECISION(), nullable=True, comment="Likewise, within business hours in DX_TIME_ZONE"),
    sa.Column("cycle_time", sa.DOUBLE_PRECISION(), nullable=True, comment="Seconds from ready for review, else the opening, to the merge"),
    sa.Column("cycle_time_business_hours", sa.DOUBLE_PRECISION(), nullable=True, comment="Likewise, within the author's business hours"),
    sa.Column("lead_time", sa.DOUBLE_PRECISION(), nullable=True, comment="Seconds from the first commit to the first successful deployment to production"),
    sa.Column("lead_time_business_hours", sa.DOUBLE_PRECISION(), nullable=True, comment="Likewise, within business hours in DX_TIME_ZONE"),
    sa.Column("comment_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Comments by people other than the author until the end: the depth of its review"),
    sa.Column("review_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Reviews by people other than the author until the end"),
    sa.Column("reviewer_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="People who gave these reviews"),
    sa.Column("re_reviewed", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether a person reviewed it after a person's change request, until the end"),
    sa.Column("merged_without_review", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether it was merged, and no person reviewed it before"),
    sa.Column("reverted", sa.Boolean(), nullable=True, comment="Whether a later merged pull request of the repository says that it reverts this one"),
    sa.Column("reverted_at", sa.DateTime(timezone=True), nullable=True, comment="When the first of these was merged"),
    sa.Column("size", sa.BigInteger(), nullable=True, comment="Lines added and removed; null until fetched (DX_PULL_REQUEST_SIZE)"),
    sa.Column("changed_files", sa.Integer(), nullable=True, comment="Files changed, likewise"),
    sa.Column("ai_named", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether a trailer of one of its commits names an AI assistant"),
    sa.Column("ai_account", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether its author, or that of one of its commits, is an account of type ai_bot"),
    sa.Column("source_table_id", sa.Uuid(), nullable=False, comment="bitbucket_pulls.id"),
    sa.Column("source_table_repo_id", sa.Uuid(), nullable=False, comment="bitbucket_repositories.id"),
    sa.PrimaryKeyConstraint("pull_request_id"),
    comment="Measures of pull requests"
    )
    op.create_index("ix_pull_request_measures_deployed_at", "pull_request_measures", ["deployed_at"], unique=False)
    op.create_index("ix_pull_request_measures_source_table_id", "pull_request_measures", ["source_table_id"], unique=True)
    op.create_index("ix_pull_request_measures_week", "pull_request_measures", ["week"], unique=False)
    op.create_table("weekly_measures",
    sa.Column("scope", sa.Text(), nullable=False, comment="workspace, repository or team"),
    sa.Column("scope_id", sa.Text(), nullable=False, comment="bitbucket_workspaces.id, repos.id or dx_teams.id, as a text"),
    sa.Column("week", sa.Date(), nullable=False, comment="Monday of the week, in DX_TIME_ZONE"),
    sa.Column("workspace_id", sa.Uuid(), nullable=True, comment="bitbucket_workspaces.id; null for a team, which belongs to none"),
    sa.Column("repo_id", sa.BigInteger(), nullable=True, comment="repos.id of a repository"),
    sa.Column("team_id", sa.BigInteger(), nullable=True, comment="dx_teams.id of a team. Teams count with the teams below them, by the teams of today"),
    sa.Column("merged_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Pull requests that people merged this week: the throughput"),
    sa.Column("engineer_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="People who opened these"),
    sa.Column("throughput_per_engineer", sa.DOUBLE_PRECISION(), nullable=True, comment="Of these pull requests, for each of these people"),
    sa.Column("bot_merged_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Merged pull requests of bots, which count in no other figure"),
    sa.Column("bot_merged_share", sa.DOUBLE_PRECISION(), nullable=True, comment="Their share of all merged ones, from 0 to 1; null of none"),
    sa.Column("coding_time_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Pull requests merged this week of which coding_time is known"),
    sa.Column("coding_time_median", sa.DOUBLE_PRECISION(), nullable=True, comment="Median of their seconds from the first commit to the opening"),
    sa.Column("coding_time_p75", sa.DOUBLE_PRECISION(), nullable=True, comment="75th percentile of their seconds from the first commit to the opening"),
    sa.Column("coding_time_p90", sa.DOUBLE_PRECISION(), nullable=True, comment="90th percentile of their seconds from the first commit to the opening"),
    sa.Column("coding_time_business_hours_median", sa.DOUBLE_PRECISION(), nullable=True, comment="Median of these durations within business hours"),
    sa.Column("coding_time_business_hours_p75", sa.DOUBLE_PRECISION(), nullable=True, comment="75th percentile of these durations within business hours"),
    sa.Column("coding_time_business_hours_p90", sa.DOUBLE_PRECISION(), nullable=True, comment="90th percentile of these durations within business hours"),
    sa.Column("pickup_time_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Pull requests merged this week of which pickup_time is known"),
    sa.Column("pickup_time_median", sa.DOUBLE_PRECISION(), nullable=True, comment="Median of their seconds from ready for review, else the opening, to the first review by another person"),
    sa.Column("pickup_time_p75", sa.DOUBLE_PRECISION(), nullable=True, comment="75th percentile of their seconds from ready for review, else the opening, to the first review by another person"),
    sa.Column("pickup_time_p90", sa.DOUBLE_PRECISION(), nullable=True, comment="90th percentile of their seconds from ready for review, else the opening, to the first review by another person"),
    sa.Column("pickup_time_business_hours_median", sa.DOUBLE_PRECISION(), nullable=True, comment="Median of these durations within business hours"),
    sa.Column("pickup_time_business_hours_p75", sa.DOUBLE_PRECISION(), nullable=True, comment="75th percentile of these durations within business hours"),
    sa.Column("pickup_time_business_hours_p90", sa.DOUBLE_PRECISION(), nullable=True, comment="90th percentile of these durations within business hours"),
    sa.Column("review_time_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Pull requests merged this week of which review_time is known"),
    sa.Column("review_time_median", sa.DOUBLE_PRECISION(), nullable=True, comment="Median of their seconds from that review to the merge"),
    sa.Column("review_time_p75", sa.DOUBLE_PRECISION(), nullable=True, comment="75th percentile of their seconds from that review to the merge"),
    sa.Column("review_time_p90", sa.DOUBLE_PRECISION(), nullable=True, comment="90th percentile of their seconds from that review to the merge"),
    sa.Column("review_time_business_hours_median", sa.DOUBLE_PRECISION(), nullable=True, comment="Median of these durations within business hours"),
    sa.Column("review_time_business_hours_p75", sa.DOUBLE_PRECISION(), nullable=True, comment="75th percentile of these durations within business hours"),
    sa.Column("review_time_business_hours_p90", sa.DOUBLE_PRECISION(), nullable=True, comment="90th percentile of these durations within business hours"),
    sa.Column("deploy_time_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Pull requests merged this week of which deploy_time is known"),
    sa.Column("deploy_time_median", sa.DOUBLE_PRECISION(), nullable=True, comment="Median of their seconds from the merge to the first successful deployment to production"),
    sa.Column("deploy_time_p75", sa.DOUBLE_PRECISION(), nullable=True, comment="75th percentile of their seconds from the merge to the first successful deployment to production"),
    sa.Column("deploy_time_p90", sa.DOUBLE_PRECISION(), nullable=True, comment="90th percentile of their seconds from the merge to the first successful deployment to production"),
    sa.Column("deploy_time_business_hours_median", sa.DOUBLE_PRECISION(), nullable=True, comment="Median of these durations within business hours"),
    sa.Column("deploy_time_business_hours_p75", sa.DOUBLE_PRECISION(), nullable=True, comment="75th percentile of these durations within business hours"),
    sa.Column("deploy_time_business_hours_p90", sa.DOUBLE_PRECISION(), nullable=True, comment="90th percentile of these durations within business hours"),
    sa.Column("cycle_time_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Pull requests merged this week of which cycle_time is known"),
    sa.Column("cycle_time_median", sa.DOUBLE_PRECISION(), nullable=True, comment="Median of their seconds from ready for review, else the opening, to the merge"),
    sa.Column("cycle_time_p75", sa.DOUBLE_PRECISION(), nullable=True, comment="75th percentile of their seconds from ready for review, else the opening, to the merge"),
    sa.Column("cycle_time_p90", sa.DOUBLE_PRECISION(), nullable=True, comment="90th percentile of their seconds from ready for review, else the opening, to the merge"),
    sa.Column("cycle_time_business_hours_median", sa.DOUBLE_PRECISION(), nullable=True, comment="Median of these durations within business hours"),
    sa.Column("cycle_time_business_hours_p75", sa.DOUBLE_PRECISION(), nullable=True, comment="75th percentile of these durations within business hours"),
    sa.Column("cycle_time_business_hours_p90", sa.DOUBLE_PRECISION(), nullable=True, comment="90th percentile of these durations within business hours"),
    sa.Column("lead_time_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Pull requests deployed this week of which lead_time is known"),
    sa.Column("lead_time_median", sa.DOUBLE_PRECISION(), nullable=True, comment="Median of their seconds from the first commit to the first successful deployment to production"),
    sa.Column("lead_time_p75", sa.DOUBLE_PRECISION(), nullable=True, comment="75th percentile of their seconds from the first commit to the first successful deployment to production"),
    sa.Column("lead_time_p90", sa.DOUBLE_PRECISION(), nullable=True, comment="90th percentile of their seconds from the first commit to the first successful deployment to production"),
    sa.Column("lead_time_business_hours_median", sa.DOUBLE_PRECISION(), nullable=True, comment="Median of these durations within business hours"),
    sa.Column("lead_time_business_hours_p75", sa.DOUBLE_PRECISION(), nullable=True, comment="75th percentile of these durations within business hours"),
    sa.Column("lead_time_business_hours_p90", sa.DOUBLE_PRECISION(), nullable=True, comment="90th percentile of these durations within business hours"),
    sa.Column("merged_without_review_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Merged pull requests that no person reviewed before"),
    sa.Column("merged_without_review_share", sa.DOUBLE_PRECISION(), nullable=True, comment="Their share of merged_count, from 0 to 1; null of none"),
    sa.Column("re_reviewed_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Merged pull requests that were reviewed again after a change request"),
    sa.Column("reverted_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Merged pull requests that a later one reverts"),
    sa.Column("ai_named_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Merged pull requests whose commits name an AI assistant in a trailer"),
    sa.Column("ai_account_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Merged pull requests, also of bots, with an account of type ai_bot as an author"),
    sa.Column("review_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Reviews by people this week"),
    sa.Column("reviewer_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="People who gave these reviews"),
    sa.Column("review_load_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="People who reviewed, or opened what was merged this week"),
    sa.Column("review_load_gini", sa.DOUBLE_PRECISION(), nullable=True, comment="Gini coefficient of reviews over these people: 0 where all review as much, from 0 to 1; null of none"),
    sa.Column("bot_review_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Reviews by bots, which count in no other figure"),
    sa.Column("bot_review_share", sa.DOUBLE_PRECISION(), nullable=True, comment="Their share of all reviews, from 0 to 1; null of none"),
    sa.Column("pipeline_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Runs of pipelines that ended this week with success or failure; of a team, its members'"),
    sa.Column("pipeline_failure_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Those that failed"),
    sa.Column("pipeline_failure_rate", sa.DOUBLE_PRECISION(), nullable=True, comment="Their share of pipeline_count, from 0 to 1; null of none"),
    sa.Column("pipeline_duration_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Those of pipeline_count whose duration is known"),
    sa.Column("pipeline_duration_median", sa.DOUBLE_PRECISION(), nullable=True, comment="Median of the seconds that they ran"),
    sa.Column("pipeline_duration_p75", sa.DOUBLE_PRECISION(), nullable=True, comment="75th percentile of the seconds that they ran"),
    sa.Column("pipeline_duration_p90", sa.DOUBLE_PRECISION(), nullable=True, comment="90th percentile of the seconds that they ran"),
    sa.Column("deployment_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Successful deployments to production this week; of a team, those with its pull requests"),
    sa.Column("failed_deployment_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Deployments to production that ended this week without success; none of a team"),
    sa.Column("change_failure_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Those of deployment_count that were rolled back or reverted within 7 days"),
    sa.Column("change_failure_rate", sa.DOUBLE_PRECISION(), nullable=True, comment="Their share of deployment_count, from 0 to 1; null of none"),
    sa.PrimaryKeyConstraint("scope", "scope_id", "week"),
    comment="Measures of weeks, for each workspace, repository and team. A figure whose count is below 5 says little"
    )
    op.create_index("ix_weekly_measures_workspace_id_week", "weekly_measures", ["workspace_id", "week"], unique=False)
    op.alter_column("changed_rows", "kind",
               comment="pull, review, branch, pipeline, deployment, environment, user, address (of a user) or repository; or a derived table that measures read, with a date in UTC where that is what changed",
               existing_comment="pull, review, branch, pipeline, deployment, environment, user, address (of a user) or repository",
               existing_nullable=False)
    op.alter_column("changed_rows", "id",
               comment="Id of the row, or of what the changed row belongs to; the workspace's of a date, or of all rows",
               existing_comment="Id of the row, or of what the changed row belongs to",
               existing_nullable=False)
    op.add_column("deployments", sa.Column("rolled_back_at", sa.DateTime(timezone=True), nullable=True, comment="When the environment next got another commit, if it had got that one before; null where it has not"))
    op.create_index("ix_deployments_deployed_at", "deployments", ["deployed_at"], unique=False)
    op.create_index("ix_pipeline_runs_finished_at", "pipeline_runs", ["finished_at"], unique=False)
    op.create_index("ix_pull_request_reviews_created", "pull_request_reviews", ["created"], unique=False)
    op.add_column("pull_requests", sa.Column("reverted_at", sa.DateTime(timezone=True), nullable=True, comment="When the first of these was merged"))
    op.execute(NOTE_ATTRIBUTED_PULLS)
    op.execute(NOTE_CHANGED_DAYS)
    for trigger in TRIGGERS:
        op.execute(trigger)


def downgrade() -> None:
    for trigger in TRIGGERS:
        _, _, name, _, _, _, table, *_ = trigger.split()
        op.execute(f"DROP TRIGGER {name} ON {table}")
    op.execute("DROP FUNCTION public.note_changed_days()")
    op.execute("DROP FUNCTION public.note_attributed_pulls()")
    op.drop_column("pull_requests", "reverted_at")
    op.drop_index("ix_pull_request_reviews_created", table_name="pull_request_reviews")
    op.drop_index("ix_pipeline_runs_finished_at", table_name="pipeline_runs")
    op.drop_index("ix_deployments_deployed_at", table_name="deployments")
    op.drop_column("deployments", "rolled_back_at")
    op.alter_column("changed_rows", "id",
               comment="Id of the row, or of what the changed row belongs to",
               existing_comment="Id of the row, or of what the changed row belongs to; the workspace's of a date, or of all rows",
               existing_nullable=False)
    op.alter_column("changed_rows", "kind",
               comment="pull, review, branch, pipeline, deployment, environment, user, address (of a user) or repository",
               existing_comment="pull, review, branch, pipeline, deployment, environment, user, address (of a user) or repository; or a derived table that measures read, with a date in UTC where that is what changed",
               existing_nullable=False)
    op.drop_index("ix_weekly_measures_workspace_id_week", table_name="weekly_measures")
    op.drop_table("weekly_measures")
    op.drop_index("ix_pull_request_measures_week", table_name="pull_request_measures")
    op.drop_index("ix_pull_request_measures_source_table_id", table_name="pull_request_measures")
    op.drop_index("ix_pull_request_measures_deployed_at", table_name="pull_request_measures")
    op.drop_table("pull_request_measures")
