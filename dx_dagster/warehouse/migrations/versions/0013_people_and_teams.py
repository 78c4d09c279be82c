"""People, their accounts and addresses, and teams."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# Whoever writes, and in whichever way: a set type wins, and forgotten accounts stay empty. `ON CONFLICT DO UPDATE` sees
# the row as the trigger leaves it, so that importing the same page again finds no difference.
KEEP_USERS = """
    CREATE FUNCTION public.keep_users() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE said text;
    BEGIN
        IF TG_OP = 'INSERT' THEN
            SELECT t.type INTO said FROM public.account_types t WHERE t.source_id = NEW.source_id;
            IF FOUND THEN
                NEW.type := said;
                NEW.bot := said <> 'human';
                NEW.counted_as := said;
            END IF;
            NEW.forgotten := EXISTS (
                SELECT FROM public.forgotten_accounts f
                WHERE f.account_hash IN (encode(sha256(convert_to(NEW.source_id, 'UTF8')), 'hex'),
                                         encode(sha256(convert_to(NEW.account_id, 'UTF8')), 'hex')));
        END IF;
        IF NEW.forgotten THEN
            NEW.name := NULL;
            NEW.nickname := NULL;
            NEW.email := NULL;
        END IF;
        RETURN NEW;
    END $$"""
KEEP_COMMENTS = """
    CREATE FUNCTION public.keep_comments() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF EXISTS (SELECT FROM public.bitbucket_users u WHERE u.id = NEW.user_id AND u.forgotten) THEN
            NEW.content := NULL;
        END IF;
        RETURN NEW;
    END $$"""


def upgrade() -> None:
    op.create_table("dx_users",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Stays the same for ever for the same person"),
    sa.Column("source_id", sa.Text(), nullable=False, comment="The account or address that the person was made for: account, user or email, and its id"),
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
    sa.Column("merged_into_id", sa.BigInteger(), nullable=True, comment="dx_users.id of the person that this one turned out to be; no account is linked here"),
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
    sa.Column("reason", sa.Text(), nullable=False, comment="Why the account is this person's: account_id, user_id, email, commit_email, manual, or alone"),
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
    op.create_table("stated_people",
    sa.Column("email", sa.Text(), nullable=False, comment="E-mail address in lower case"),
    sa.Column("line", sa.Integer(), nullable=False, comment="Line of the file"),
    sa.Column("name", sa.Text(), nullable=True, comment="Name; null where the file says none"),
    sa.Column("team", sa.Text(), nullable=True, comment="Path of the team, as Engineering/Platform; null where the file says none"),
    sa.Column("tz", sa.Text(), nullable=True, comment="IANA time zone; null where the file says none"),
    sa.Column("type", sa.Text(), nullable=True, comment="human, bot or ai_bot; null where the file says none"),
    sa.PrimaryKeyConstraint("email"),
    comment="What the last `people import` said of people: it wins over what is worked out"
    )
    op.create_table("account_emails",
    sa.Column("user_id", sa.Uuid(), nullable=False, comment="bitbucket_users.id"),
    sa.Column("email", sa.Text(), nullable=False, comment="The address in lower case"),
    sa.Column("verified", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether it was the account's own address, as Jira returned it"),
    sa.Column("of_commits", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether Bitbucket linked commits with this address to the account"),
    sa.PrimaryKeyConstraint("user_id", "email"),
    comment="Every e-mail address that an account was ever seen with: what people are joined by"
    )
    op.create_index("ix_account_emails_email", "account_emails", ["email"], unique=False)
    op.create_table("account_types",
    sa.Column("source_id", sa.Text(), nullable=False, comment="Bitbucket's uuid of the user, with braces"),
    sa.Column("type", sa.Text(), nullable=False, comment="human, bot or ai_bot"),
    sa.Column("said_by", sa.Text(), nullable=False, comment="api (users.setUserStatuses) or file (people import)"),
    sa.Column("said_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When it was set"),
    sa.PrimaryKeyConstraint("source_id"),
    comment="Types of accounts that somebody set: they win over what is derived from the API"
    )
    op.create_table("forgotten_accounts",
    sa.Column("account_hash", sa.Text(), nullable=False, comment="SHA-256 of the account's uuid or Atlassian account id, in hexadecimal"),
    sa.Column("forgotten_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When `people forget` emptied its rows"),
    sa.PrimaryKeyConstraint("account_hash"),
    comment="Accounts whose name, e-mail address and comments are never stored again"
    )
    op.add_column("bitbucket_users", sa.Column("imported_type", sa.Text(), nullable=True, comment="The type as derived from the API; somebody may have set another one"))
    op.add_column("bitbucket_users", sa.Column("left_at", sa.DateTime(timezone=True), nullable=True, comment="When a complete listing of members first no longer held the user"))
    op.add_column("bitbucket_users", sa.Column("forgotten", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="Whether `people forget` emptied name and e-mail address for good"))
    op.execute("UPDATE bitbucket_users SET imported_type = type")
    op.create_index("ix_bitbucket_users_source_id", "bitbucket_users", ["source_id"], unique=False)
    op.create_index("ix_bitbucket_users_account_id", "bitbucket_users", ["account_id"], unique=False)
    op.execute(KEEP_USERS)
    op.execute(KEEP_COMMENTS)
    op.execute("CREATE TRIGGER keep_what_was_said BEFORE INSERT OR UPDATE OF name, nickname, email ON bitbucket_users FOR EACH ROW EXECUTE FUNCTION public.keep_users()")
    op.execute("CREATE TRIGGER keep_what_was_said BEFORE INSERT OR UPDATE OF content ON bitbucket_pull_comments FOR EACH ROW EXECUTE FUNCTION public.keep_comments()")


def downgrade() -> None:
    op.execute("DROP TRIGGER keep_what_was_said ON bitbucket_pull_comments")
    op.execute("DROP TRIGGER keep_what_was_said ON bitbucket_users")
    op.execute("DROP FUNCTION public.keep_comments()")
    op.execute("DROP FUNCTION public.keep_users()")
    op.drop_index("ix_bitbucket_users_account_id", table_name="bitbucket_users")
    op.drop_index("ix_bitbucket_users_source_id", table_name="bitbucket_users")
    for name in ("forgotten", "left_at", "imported_type"):
        op.drop_column("bitbucket_users", name)
    op.drop_table("forgotten_accounts")
    op.drop_table("account_types")
    op.drop_table("account_emails")
    op.drop_table("stated_people")
    op.drop_table("dx_team_hierarchies")
    op.drop_table("dx_teams")
    op.drop_table("dx_user_identifiers")
    op.drop_table("identities")
    op.drop_table("dx_users")
