"""Reviews of one pull request, from rows as an import leaves them."""

import asyncio

import psycopg
import pytest

from dx_dagster.insights import building, reviews
from dx_dagster.insights.unified import pull_request_reviews, pull_requests, repos
from dx_dagster.warehouse.database import Warehouse

ACME = "00000000-0000-0000-0000-0000000000a1"
PULL = "00000000-0000-0000-0000-0000000000d1"
# `ann2` is Ann's account after it was deleted: another uuid, the same account id.
USERS = {
    name: f"00000000-0000-0000-0000-0000000000c{number}" for number, name in enumerate(("ann", "ann2", "bob", "ci"))
}
ROWS = f"""
    INSERT INTO bitbucket_workspaces (id, source_id, slug) VALUES ('{ACME}', '{{a1}}', 'acme');
    INSERT INTO bitbucket_repositories (id, source_id, workspace_id, slug, name)
        VALUES ('00000000-0000-0000-0000-0000000000b1', '{{b1}}', '{ACME}', 'web', 'Web');
    INSERT INTO bitbucket_users (id, source_id, workspace_id, name, account_id, type) VALUES
        ('{USERS["ann"]}', '{{c0}}', '{ACME}', 'Ann', 'a', 'human'),
        ('{USERS["ann2"]}', '{{c1}}', '{ACME}', 'Former user', 'a', 'human'),
        ('{USERS["bob"]}', '{{c2}}', '{ACME}', 'Bob', 'b', 'human'),
        ('{USERS["ci"]}', '{{c3}}', '{ACME}', 'CI', NULL, 'bot');
    INSERT INTO bitbucket_pulls (id, source_id, repository_id, user_id, state, source_url, created_at)
        VALUES ('{PULL}', 1, '00000000-0000-0000-0000-0000000000b1', '{USERS["ann"]}', 'OPEN', 'pull',
                '2026-03-02 12:00Z')"""
DAY = "2026-03-02 {}Z"


class Pull:
    """The pull request's rows, and the reviews that a build makes of them."""

    def __init__(self, database: "psycopg.Connection[tuple[object, ...]]", url: str) -> None:
        self.database, self.url = database, url

    def judge(self, user: str | None, kind: str, at: str) -> None:
        self.database.execute(
            "INSERT INTO bitbucket_pull_activities (id, pull_id, user_id, kind, created_at) "
            "VALUES (gen_random_uuid(), %s, %s, %s, %s)",
            [PULL, USERS.get(user or ""), kind, DAY.format(at)],
        )

    def comment(self, user: str | None, number: int, at: str) -> None:
        when = DAY.format(at)
        self.database.execute(
            "INSERT INTO bitbucket_pull_comments (id, source_id, pull_id, user_id, created_at, updated_at, source_url) "
            "VALUES (gen_random_uuid(), %s, %s, %s, %s, %s, %s)",
            [number, PULL, USERS.get(user or ""), when, when, f"comment {number}"],
        )

    def delete_comment(self, number: int) -> None:
        self.database.execute(
            "UPDATE bitbucket_pull_comments SET deleted = true, updated_at = now() WHERE source_id = %s", [number]
        )

    def participate(self, user: str, state: str | None, at: str | None, synced_at: str) -> None:
        """What Bitbucket tells of a participant now."""
        self.database.execute(
            "INSERT INTO bitbucket_pull_participants VALUES (%s, %s, 'REVIEWER', %s, %s, %s, %s) "
            "ON CONFLICT (pull_id, user_id) DO UPDATE SET approved = EXCLUDED.approved, state = EXCLUDED.state, "
            "participated_on = EXCLUDED.participated_on, synced_at = EXCLUDED.synced_at",
            [PULL, USERS[user], state == "approved", state, at and DAY.format(at), DAY.format(synced_at)],
        )

    def build(self, build: building.Build = reviews.BUILD) -> building.Built:
        async def run() -> building.Built:
            async with Warehouse(self.url) as warehouse:
                return await building.run(warehouse, build, ACME)

        return asyncio.run(run())

    def reviews(self) -> list[tuple[object, ...]]:
        self.build()
        return self.database.execute(
            "SELECT u.name, v.state, comment_count, to_char(v.created_at, 'HH24:MI'), time_since_request / 60, "
            "v.source_url FROM bitbucket_reviews v JOIN bitbucket_users u ON u.id = v.user_id "
            "ORDER BY v.created_at, v.state"
        ).fetchall()

    def ids(self) -> list[object]:
        return [row[0] for row in self.database.execute("SELECT id FROM bitbucket_reviews ORDER BY created_at, state")]


@pytest.fixture
def pull(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET TIME ZONE 'UTC'")
        connection.execute(ROWS.encode())
        yield Pull(connection, database_url)


def test_an_opinion_takes_the_reviewers_comments_since_the_one_before(pull):
    for number, at in enumerate(("12:10", "12:20", "12:30", "12:50", "13:00")):
        pull.comment("bob", number, at)
    pull.judge("bob", "changes_requested", "12:20")  # at the moment of a comment
    pull.judge("bob", "approval", "12:40")
    pull.comment("ci", 5, "12:25")
    pull.judge("ci", "approval", "12:35")
    assert pull.reviews() == [
        ("Bob", "DECLINED", 2, "12:20", 20, "pull"),
        ("CI", "APPROVED", 1, "12:35", 35, "pull"),
        ("Bob", "APPROVED", 1, "12:40", 40, "pull"),
        ("Bob", "COMMENTED", 2, "12:50", 50, "comment 3"),
    ]


def test_neither_the_author_nor_an_account_that_is_gone_reviews(pull):
    for number, user in enumerate(("ann", "ann2", None)):
        pull.comment(user, number, "12:10")
        pull.judge(user, "approval", "12:20")
    assert pull.reviews() == []


def test_several_opinions_at_one_moment_are_reviews_of_their_own(pull):
    pull.comment("bob", 1, "12:10")
    for kind in ("approval", "changes_requested"):
        pull.judge("bob", kind, "12:20")
    assert pull.reviews() == [
        ("Bob", "APPROVED", 0, "12:20", 20, "pull"),
        ("Bob", "DECLINED", 1, "12:20", 20, "pull"),
    ]


def test_what_is_dated_before_the_opening_has_no_duration(pull):
    pull.comment("bob", 1, "11:00")
    pull.judge("ci", "approval", "11:59")
    pull.database.execute(
        "INSERT INTO bitbucket_pulls (id, source_id, repository_id, state) "
        "SELECT gen_random_uuid(), 2, repository_id, 'OPEN' FROM bitbucket_pulls"
    )
    assert pull.reviews() == [
        ("Bob", "COMMENTED", 1, "11:00", None, "comment 1"),
        ("CI", "APPROVED", 0, "11:59", None, "pull"),
    ]


def test_a_deleted_comment_changes_its_review_and_nobody_elses(pull):
    pull.comment("bob", 1, "12:10")
    pull.comment("bob", 2, "12:20")
    pull.judge("ci", "approval", "12:30")
    pull.build()
    ids = pull.ids()
    pull.delete_comment(1)
    assert pull.build() == building.Built(0, 1, everything=False)
    assert pull.reviews()[0] == ("Bob", "COMMENTED", 1, "12:20", 20, "comment 2")
    assert pull.ids() == ids
    pull.delete_comment(2)
    assert pull.reviews() == [("CI", "APPROVED", 0, "12:30", 30, "pull")]
    assert pull.build() == building.Built(0, 0, everything=False)


@pytest.mark.parametrize(
    ("at", "synced_at", "is_withdrawn"),
    [
        ("12:30", "12:31", True),
        ("12:05", "12:31", True),  # Bitbucket keeps the date of what he did before
        ("12:30", "11:00", True),  # this host's clock was behind
        ("12:05", "12:19", False),  # told before the approval
        (None, "12:31", False),  # a list of reviewers, which says nothing of opinions
    ],
)
def test_a_withdrawn_approval_leaves_its_comments(pull, at, synced_at, is_withdrawn):
    pull.comment("bob", 1, "12:10")
    pull.judge("bob", "changes_requested", "12:15")
    pull.comment("bob", 2, "12:18")
    pull.judge("bob", "approval", "12:20")
    pull.participate("bob", "approved", "12:20", "12:21")
    before = pull.reviews()
    assert [review[1] for review in before] == ["DECLINED", "APPROVED"]
    pull.participate("bob", None, at, synced_at)
    left = [("Bob", "COMMENTED", 1, "12:18", 18, "comment 2")] if is_withdrawn else before[1:]
    assert pull.reviews() == before[:1] + left


def test_a_new_opinion_takes_the_comments_that_were_a_review_of_their_own(pull):
    """Whenever they are built, ids are those of an import that came later."""
    pull.comment("bob", 1, "12:10")
    assert [review[1] for review in pull.reviews()] == ["COMMENTED"]
    early = pull.ids()
    pull.judge("bob", "approval", "12:20")
    pull.comment("bob", 2, "12:30")
    assert pull.reviews() == [
        ("Bob", "APPROVED", 1, "12:20", 20, "pull"),
        ("Bob", "COMMENTED", 1, "12:30", 30, "comment 2"),
    ]
    ids = pull.ids()
    assert not set(early) & set(ids)
    pull.database.execute("TRUNCATE bitbucket_reviews, build_marks")
    pull.build()
    assert pull.ids() == ids


@pytest.mark.parametrize("how", ["DELETE FROM build_marks", "SELECT"])
def test_reviews_go_with_their_pull_request(pull, how):
    pull.comment("bob", 1, "12:10")
    assert len(pull.reviews()) == 1
    pull.database.execute("DELETE FROM bitbucket_pulls")
    pull.database.execute(how)
    assert pull.reviews() == []


def test_builds_look_at_nothing_again_that_they_have_seen(pull):
    pull.build(repos.BUILD)
    pull.comment("bob", 1, "12:10")
    pull.judge("bob", "approval", "12:20")
    for build in (reviews.BUILD, pull_requests.BUILD, pull_request_reviews.BUILD):
        assert pull.build(build).inserted == 1
    left = pull.database.execute(
        "SELECT m.asset, c.kind FROM build_marks m JOIN changed_rows c ON c.changed_in >= m.built_to "
        "WHERE m.asset LIKE 'unified/pull%' AND c.kind IN ('pull', 'review')"
    )
    assert left.fetchall() == []
