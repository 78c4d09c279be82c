"""One person, however many accounts; and their teams. Named as DX names them."""

from sqlalchemy import BigInteger, Column, Date, Index, Integer, Table, Text

from dx_dagster.warehouse.schema.columns import (
    flag,
    foreign,
    metadata,
    number,
    number_key,
    reference,
    text,
    time,
    time_of_insert,
    uuid_key,
)

users = Table(
    "dx_users",
    metadata,
    number_key("Stays the same for ever for the same person", BigInteger),
    text(
        "source_id",
        "The account or address that the person was made for: account, user or email, and its id",
        nullable=False,
    ),
    number("team_id", "dx_teams.id"),
    text("name", "Name"),
    text("email", "E-mail address in lower case"),
    text("avatar", "Not imported"),
    text("github_username", "Not imported"),
    text("additional_github_username", "Not imported"),
    text("gitlab_username", "Not imported"),
    flag("developer", "Whether the person counts as a developer; false for bots", default=True),
    text("type", "human, bot or ai_bot"),
    text("tz", "IANA time zone of the person; null for DX_TIME_ZONE"),
    Column("start_date", Date, comment="Not imported"),
    Column("ai_light_adoption_date", Date, comment="Not imported"),
    Column("ai_moderate_adoption_date", Date, comment="Not imported"),
    Column("ai_heavy_adoption_date", Date, comment="Not imported"),
    time("deleted_at", "When the last of the person's accounts was gone; their history stays"),
    number("merged_into_id", "dx_users.id of the person that this one turned out to be; no account is linked here"),
    Index("ix_dx_users_source_id", "source_id", unique=True),
    Index("ix_dx_users_email", "email"),
    comment="People: one row for one person, however many accounts, workspaces and addresses",
)

identities = Table(
    "identities",
    metadata,
    number_key("Stays the same for ever for the same account", BigInteger),
    number("dx_user_id", "dx_users.id", nullable=False),
    reference("source_id", "bitbucket_users.id", nullable=False),
    text("source", "bitbucket", nullable=False),
    text(
        "reason",
        "Why the account is this person's: account_id, user_id, email, commit_email, manual, or alone",
        nullable=False,
    ),
    time_of_insert("linked_at", "When the account was last linked to the person"),
    flag("by_hand", "Whether somebody said so: no sync changes it", default=False),
    Index("ix_identities_source_source_id", "source", "source_id", unique=True),
    Index("ix_identities_dx_user_id", "dx_user_id"),
    comment="Which account is whose",
)

identifiers = Table(
    "dx_user_identifiers",
    metadata,
    number_key("Unique number", BigInteger),
    number("user_id", "dx_users.id", nullable=False),
    text("kind", "email", nullable=False),
    text("value", "The address in lower case", nullable=False),
    Index("ix_dx_user_identifiers_kind_value", "kind", "value", unique=True),
    Index("ix_dx_user_identifiers_user_id", "user_id"),
    comment="E-mail addresses of people",
)

teams = Table(
    "dx_teams",
    metadata,
    number_key("Stays the same for ever for the same team", BigInteger),
    text("source_id", "Path of the team, as Engineering/Platform", nullable=False),
    text("source_parent_id", "Path of the team above"),
    text("source_manager_id", "Not imported"),
    text("name", "Last part of the path", nullable=False),
    flag("parent", "Whether the team has teams below it", default=False),
    text("flattened_parent", "Names of the teams above it, the highest first"),
    number("contributors", "People whose team it is", Integer),
    text("reference_id", "Not imported"),
    number("parent_id", "dx_teams.id of the team above"),
    time("deleted_at", "When an import of people no longer named the team"),
    Index("ix_dx_teams_source_id", "source_id", unique=True),
    comment="Teams, as `people import` named them",
)

team_hierarchies = Table(
    "dx_team_hierarchies",
    metadata,
    number_key("Unique number", BigInteger),
    number("ancestor_id", "dx_teams.id", nullable=False),
    number("descendant_id", "dx_teams.id; the team itself with generations 0", nullable=False),
    number("generations", "How many steps the descendant is below the ancestor", Integer, nullable=False),
    Index("ix_dx_team_hierarchies_ancestor_id_descendant_id", "ancestor_id", "descendant_id", unique=True),
    comment="Every team with every team below it, itself included",
)

stated_people = Table(
    "stated_people",
    metadata,
    Column("email", Text, primary_key=True, comment="E-mail address in lower case"),
    number("line", "Line of the file", Integer, nullable=False),
    text("name", "Name; null where the file says none"),
    text("team", "Path of the team, as Engineering/Platform; null where the file says none"),
    text("tz", "IANA time zone; null where the file says none"),
    text("type", "human, bot or ai_bot; null where the file says none"),
    comment="What the last `people import` said of people: it wins over what is worked out",
)

account_emails = Table(
    "account_emails",
    metadata,
    uuid_key("bitbucket_users.id", "user_id"),
    Column("email", Text, primary_key=True, comment="The address in lower case"),
    flag(
        "verified",
        "Whether it was the account's own address, as Jira or the list of members returned it",
        default=False,
    ),
    flag("of_commits", "Whether Bitbucket linked commits with this address to the account", default=False),
    Index("ix_account_emails_email", "email"),
    comment="Every e-mail address that an account was ever seen with: what people are joined by",
)

asked_emails = Table(
    "asked_emails",
    metadata,
    uuid_key("bitbucket_workspaces.id", "workspace_id"),
    Column("email", Text, primary_key=True, comment="The address in lower case"),
    time_of_insert("first_asked_at", "When Bitbucket was first asked whose it is"),
    time_of_insert("asked_at", "When Bitbucket was last asked; the pause grows to 30 days"),
    comment="Addresses that Bitbucket was asked for: which member has them; a new member starts all over",
)

email_refusals = Table(
    "email_refusals",
    metadata,
    foreign("credential_id", "credentials.id", primary_key=True),
    time_of_insert("refused_at", "When Bitbucket last refused or failed"),
    time(
        "asks_again_at", "When the credential asks again: after a day, after a failure within the hour", nullable=False
    ),
    text("reason", "What Bitbucket answered, without its words: they may quote addresses", nullable=False),
    comment="Credentials that may not ask which member has an address; one that gets an answer loses its row",
)

account_types = Table(
    "account_types",
    metadata,
    Column("source_id", Text, primary_key=True, comment="Bitbucket's uuid of the user, with braces"),
    text("type", "human, bot or ai_bot", nullable=False),
    text("said_by", "api (users.setUserStatuses) or file (people import)", nullable=False),
    time_of_insert("said_at", "When it was set"),
    comment="Types of accounts that somebody set: they win over what is derived from the API",
)

forgotten_accounts = Table(
    "forgotten_accounts",
    metadata,
    Column(
        "account_hash",
        Text,
        primary_key=True,
        comment="SHA-256 of the account's uuid or Atlassian account id, in hexadecimal",
    ),
    time_of_insert("forgotten_at", "When `people forget` emptied its rows"),
    comment="Accounts whose name, e-mail address and comments are never stored again",
)
