"""People, their accounts and addresses, and teams."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table("dx_users",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Stays the same for ever for the same person"),
    sa.Column("source_id", sa.Text(), nullable=False, comment="Unique text of the person: what the first account or address was joined by"),
    sa.Column("team_id", sa.BigInteger(), nullable=True, comment="dx_teams.id"),
    sa.Column("name", sa.Text(), nullable=True, comment="Name"),
    sa.Column("email", sa.Text(), nullable=True, comment="E-mail address in lower case"),
    sa.Column("avatar", sa.Text(), nullable=True, comment="Not imported"),
    sa.Column("github_username", sa.Text(), nullable=True, comment="Not imported"),
    sa.Column("additional_github_username", sa.Text(), nullable=True, comment="Not imported"),
    sa.Column("gitlab_username", sa.Text(), nullable=True, comment="Not imported"),
    sa.Column("developer", sa.Boolean(), server_default=sa.text("true"), nullable=False, comment="Whether the person counts as a developer; false for bots"),
    sa.Column("type", sa.Text(), nullable=True, comment="human, bot or ai_bot"),
    sa.Column("tz", sa.Text(), nullable=True, comment="IANA time zone of the person; null for DX_TIME_ZONE"),
    sa.Column("start_date", sa.Date(), nullable=True, comment="Not imported"),
    sa.Column("ai_light_adoption_date", sa.Date(), nullable=True, comment="Not imported"),
    sa.Column("ai_moderate_adoption_date", sa.Date(), nullable=True, comment="Not imported"),
    sa.Column("ai_heavy_adoption_date", sa.Date(), nullable=True, comment="Not imported"),
    sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True, comment="When the last of the person's accounts was gone; their history stays"),
    sa.PrimaryKeyConstraint("id"),
    comment="People: one row for one person, however many accounts, workspaces and addresses"
    )
    op.create_index("ix_dx_users_email", "dx_users", ["email"], unique=False)
    op.create_index("ix_dx_users_source_id", "dx_users", ["source_id"], unique=True)
    op.create_table("identities",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Stays the same for ever for the same account"),
    sa.Column("dx_user_id", sa.BigInteger(), nullable=False, comment="dx_users.id"),
    sa.Column("source_id", sa.Uuid(), nullable=False, comment="bitbucket_users.id"),
    sa.Column("source", sa.Text(), nullable=False, comment="bitbucket"),
    sa.Column("reason", sa.Text(), nullable=False, comment="Why it is this person's: account_id, email, commit_email, manual or alone"),
    sa.Column("linked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When the account was last linked to the person"),
    sa.Column("by_hand", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether somebody said so: no sync changes it"),
    sa.PrimaryKeyConstraint("id"),
    comment="Which account is whose"
    )
    op.create_index("ix_identities_dx_user_id", "identities", ["dx_user_id"], unique=False)
    op.create_index("ix_identities_source_source_id", "identities", ["source", "source_id"], unique=True)
    op.create_table("dx_user_identifiers",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Unique number"),
    sa.Column("user_id", sa.BigInteger(), nullable=False, comment="dx_users.id"),
    sa.Column("kind", sa.Text(), nullable=False, comment="email"),
    sa.Column("value", sa.Text(), nullable=False, comment="The address in lower case"),
    sa.PrimaryKeyConstraint("id"),
    comment="E-mail addresses of people"
    )
    op.create_index("ix_dx_user_identifiers_kind_value", "dx_user_identifiers", ["kind", "value"], unique=True)
    op.create_index("ix_dx_user_identifiers_user_id", "dx_user_identifiers", ["user_id"], unique=False)
    op.create_table("dx_teams",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Stays the same for ever for the same team"),
    sa.Column("source_id", sa.Text(), nullable=False, comment="Path of the team, as Engineering/Platform"),
    sa.Column("source_parent_id", sa.Text(), nullable=True, comment="Path of the team above"),
    sa.Column("source_manager_id", sa.Text(), nullable=True, comment="Not imported"),
    sa.Column("name", sa.Text(), nullable=False, comment="Last part of the path"),
    sa.Column("parent", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether the team has teams below it"),
    sa.Column("flattened_parent", sa.Text(), nullable=True, comment="Names of the teams above it, the highest first"),
    sa.Column("contributors", sa.Integer(), nullable=True, comment="People whose team it is"),
    sa.Column("reference_id", sa.Text(), nullable=True, comment="Not imported"),
    sa.Column("parent_id", sa.BigInteger(), nullable=True, comment="dx_teams.id of the team above"),
    sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True, comment="When an import of people no longer named the team"),
    sa.PrimaryKeyConstraint("id"),
    comment="Teams, as `people import` named them"
    )
    op.create_index("ix_dx_teams_source_id", "dx_teams", ["source_id"], unique=True)
    op.create_table("dx_team_hierarchies",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Unique number"),
    sa.Column("ancestor_id", sa.BigInteger(), nullable=False, comment="dx_teams.id"),
    sa.Column("descendant_id", sa.BigInteger(), nullable=False, comment="dx_teams.id; the team itself with generations 0"),
    sa.Column("generations", sa.Integer(), nullable=False, comment="How many steps the descendant is below the ancestor"),
    sa.PrimaryKeyConstraint("id"),
    comment="Every team with every team below it, itself included"
    )
    op.create_index("ix_dx_team_hierarchies_ancestor_id_descendant_id", "dx_team_hierarchies", ["ancestor_id", "descendant_id"], unique=True)


def downgrade() -> None:
    op.drop_table("dx_team_hierarchies")
    op.drop_table("dx_teams")
    op.drop_table("dx_user_identifiers")
    op.drop_table("identities")
    op.drop_table("dx_users")
