"""E-mail addresses that Bitbucket was asked for, and credentials that may not ask."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0019"
down_revision: str | None = "0018"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SHOWN_BY_JIRA = "E-mail address; Bitbucket tells none, a Jira connection does"
SHOWN_BY_EITHER = "E-mail address, as a Jira connection tells it; else one that Bitbucket verified"
OF_JIRA = "Whether it was the account's own address, as Jira returned it"
OF_EITHER = "Whether it was the account's own address, as Jira or the list of members returned it"


def upgrade() -> None:
    op.create_table("asked_emails",
    sa.Column("workspace_id", sa.Uuid(), nullable=False, comment="bitbucket_workspaces.id"),
    sa.Column("email", sa.Text(), nullable=False, comment="The address in lower case"),
    sa.Column("first_asked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When Bitbucket was first asked whose it is"),
    sa.Column("asked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When Bitbucket was last asked; the pause grows to 30 days"),
    sa.PrimaryKeyConstraint("workspace_id", "email"),
    comment="Addresses that Bitbucket was asked for: which member has them; a new member starts all over",
    )
    op.create_table("email_refusals",
    sa.Column("credential_id", sa.Integer(), nullable=False, comment="credentials.id"),
    sa.Column("refused_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False, comment="When Bitbucket last refused or failed"),
    sa.Column("asks_again_at", sa.DateTime(timezone=True), nullable=False, comment="When the credential asks again: after a day, after a failure within the hour"),
    sa.Column("reason", sa.Text(), nullable=False, comment="What Bitbucket answered, without its words: they may quote addresses"),
    sa.ForeignKeyConstraint(["credential_id"], ["credentials.id"]),
    sa.PrimaryKeyConstraint("credential_id"),
    comment="Credentials that may not ask which member has an address; one that gets an answer loses its row",
    )
    op.alter_column("account_emails", "verified", comment=OF_EITHER)
    op.alter_column("bitbucket_users", "email", comment=SHOWN_BY_EITHER)


def downgrade() -> None:
    op.alter_column("bitbucket_users", "email", comment=SHOWN_BY_JIRA)
    op.alter_column("account_emails", "verified", comment=OF_JIRA)
    op.drop_table("email_refusals")
    op.drop_table("asked_emails")
