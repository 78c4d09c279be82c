"""Connecting, verifying and managing credentials, by the functions that every door calls."""

import json
from datetime import UTC, date, datetime, timedelta

import anyio
import psycopg
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from dx_dagster.connections import actions
from dx_dagster.connections.actions import Changes, VerificationFailed
from dx_dagster.connections.estimate import Expected, expect
from dx_dagster.connections.input import Fields, new_credential
from dx_dagster.sandbox import Sandbox
from dx_dagster.sandbox.config import WorldConfig
from dx_dagster.settings import Settings
from dx_dagster.warehouse.budgets import headroom
from dx_dagster.warehouse.connections import connections, credentials
from dx_dagster.warehouse.connections.connections import StoredConnection
from dx_dagster.warehouse.connections.vault import Vault, VaultError
from dx_dagster.warehouse.database import Warehouse
from dx_dagster_tests.connecting import API_TOKEN, EMAIL, SECOND, TOKEN, Work, connect, run, stored

pytestmark = pytest.mark.usefixtures("impatient")
MOST_REQUESTS = 10


# Changing


def updating(settings: Settings, connection: StoredConnection, changes: Changes) -> Work:
    return lambda warehouse: actions.update(settings, warehouse, connection, 1, changes)


def test_update_keeps_what_is_left_out(settings):
    connection = connect(settings, API_TOKEN, EMAIL)
    [before] = stored(settings)
    empty = Changes(settings={}, secrets={"password": SecretStr("")})
    for changes in (Changes(), empty, Changes(label=""), Changes(settings={"username": " "})):
        run(settings, updating(settings, connection, changes))
        after = stored(settings)[0]
        assert (after[1:4], after[5:10]) == (before[1:4], before[5:10])
    day = date(2030, 1, 31)
    shown = run(settings, lambda w: actions.update(settings, w, connection, 1, Changes("mine", {}, {}, True, day)))
    assert (shown.label, shown.username, shown.expiration_date) == ("mine", EMAIL, day)
    shown = run(settings, lambda w: actions.update(settings, w, connection, 1, Changes(expires=True)))
    assert (shown.label, shown.expiration_date) == ("mine", None)


def test_update_can_change_the_kind_of_credential(settings):
    connection = connect(settings, API_TOKEN, EMAIL)
    changes = Changes(secrets={"api_token": SecretStr(TOKEN)})
    shown = run(settings, lambda w: actions.update(settings, w, connection, 1, changes))
    assert (shown.type, shown.label, shown.username) == ("access_token", "Access token …0001", None)
    changes = Changes(settings={"username": EMAIL}, secrets={"password": SecretStr(API_TOKEN)})
    shown = run(settings, lambda w: actions.update(settings, w, connection, 1, changes))
    assert (shown.type, shown.username) == ("api_token", EMAIL)


def test_an_update_that_fails_leaves_the_row_as_it_was(settings, sandbox):
    connection = connect(settings)
    before = stored(settings)
    for changes in (
        Changes(label="new", secrets={"api_token": SecretStr("ATCTT3xWrong")}),
        Changes(settings={"username": EMAIL}),
        Changes(settings={"username": EMAIL}, secrets={"api_token": SecretStr(TOKEN)}),
        Changes(secrets={"api_token": SecretStr(TOKEN), "password": SecretStr(API_TOKEN)}),
    ):
        with pytest.raises(VerificationFailed) as caught:
            run(settings, updating(settings, connection, changes))
        assert caught.value.failure.code == "invalid_credentials"
    sandbox.tokens[0].revoked = True
    with pytest.raises(VerificationFailed):
        run(settings, lambda w: actions.update(settings, w, connection, 1, Changes(label="new")))
    assert stored(settings) == before


def test_a_label_alone_does_not_enable_but_a_new_secret_does(settings):
    connection = connect(settings)
    run(settings, lambda w: actions.disable(w, connection, 1, "resting"))
    assert run(settings, lambda w: connections.get(w, connection.id)).state == "failed"
    shown = run(settings, lambda w: actions.update(settings, w, connection, 1, Changes(label="new")))
    assert shown.disabled_reason == "resting"
    changes = Changes(secrets={"api_token": SecretStr(SECOND)})
    shown = run(settings, lambda w: actions.update(settings, w, connection, 1, changes))
    assert (shown.disabled_at, shown.hint) == (None, "0002")
    assert run(settings, lambda w: connections.get(w, connection.id)).state == "verified"


def test_removed_credentials_keep_no_secret_and_cannot_be_touched(settings):
    connection = connect(settings)
    run(settings, lambda w: actions.remove(w, connection, 1))
    [row] = stored(settings)
    assert (row[4], row[9] is not None) == ("", True)
    for work in (
        lambda w: actions.remove(w, connection, 1),
        lambda w: actions.disable(w, connection, 1, "x"),
        lambda w: actions.check(settings, w, connection, 1),
        lambda w: actions.update(settings, w, connection, 1, Changes(label="x")),
        lambda w: actions.show(w, connection, 1),
    ):
        with pytest.raises(actions.CredentialNotFoundError):
            run(settings, work)
    assert run(settings, lambda w: actions.show(w, connection, 1, deleted=True)).deleted_at is not None


def test_checking_again_enables_the_good_and_notes_the_bad(settings, sandbox):
    connection = connect(settings)
    run(settings, lambda w: actions.add(settings, w, connection, new_credential(SecretStr(SECOND))))
    run(settings, lambda w: actions.disable(w, connection, 1, "resting"))
    sandbox.tokens[1].revoked = True
    first, second = run(settings, lambda w: actions.check(settings, w, connection))
    assert (first.verdict.failure, second.verdict.failure.code) == (None, "invalid_credentials")
    one, two = run(settings, lambda w: credentials.shown(w, connection.id))
    assert (one.disabled_at, one.code, two.code) == (None, None, "invalid_credentials")
    assert run(settings, lambda w: connections.get(w, connection.id)).state == "verified"


def test_the_same_secret_again_keeps_its_row_and_what_was_chosen_for_it(settings):
    connection = connect(settings)
    again = new_credential(SecretStr(TOKEN), label="again", expires=date(2030, 1, 31))
    run(settings, lambda w: actions.add(settings, w, connection, again))
    run(settings, lambda w: actions.disable(w, connection, 1, "resting"))
    connect(settings)
    [row] = stored(settings)
    assert (row[0], row[2], row[6], row[7], row[8], row[9]) == (1, "again", date(2030, 1, 31), None, None, None)


def test_an_update_to_the_secret_of_another_replaces_that_one(settings):
    connection = connect(settings)
    run(settings, lambda w: actions.add(settings, w, connection, new_credential(SecretStr(SECOND))))
    changes = Changes(secrets={"api_token": SecretStr(SECOND)})
    run(settings, lambda w: actions.update(settings, w, connection, 1, changes))
    assert [(row[0], row[5]) for row in stored(settings) if row[9] is None] == [(1, "0002")]


# At rest


def test_swapped_ciphertexts_do_not_open(settings, database_url):
    connection = connect(settings)
    run(settings, lambda w: actions.add(settings, w, connection, new_credential(SecretStr(SECOND))))
    with psycopg.connect(database_url) as database:
        database.execute("UPDATE credentials SET secret = (SELECT secret FROM credentials WHERE id = 2) WHERE id = 1")
    with pytest.raises(VaultError, match="belongs to credential 2"):
        run(settings, lambda w: credentials.get(w, Vault.of(settings), connection.id, 1))
    [used] = run(settings, lambda w: credentials.all_of(w, Vault.of(settings), connection.id))
    assert used.id == 2


def test_rekeying_with_keys_of_ones_own(settings):
    connection = connect(settings)
    old = settings.secret_keys.get_secret_value()
    new = Fernet.generate_key().decode()
    rotating = settings.model_copy(update={"secret_keys": SecretStr(f"{new},{old}")})
    assert run(rotating, lambda w: actions.rekey(rotating, w)) == (1, False)
    only_new = settings.model_copy(update={"secret_keys": SecretStr(new)})
    [one] = run(only_new, lambda w: credentials.all_of(w, Vault.of(only_new), connection.id))
    assert one.secret.get_secret_value() == TOKEN
    with pytest.raises(VaultError):
        run(settings, lambda w: actions.rekey(settings, w))


def test_rekeying_with_the_key_that_dx_dagster_keeps(settings, database_url):
    own = settings.model_copy(update={"secret_keys": None})
    connection = connect(own)
    file, before = own.home / "secret_keys", []
    for _ in range(3):
        before.append(file.read_text().split(",")[0])
        assert run(own, lambda w: actions.rekey(own, w)) == (1, True)
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.read_text().split(",")[1:] == before[-1:]
    [one] = run(own, lambda w: credentials.all_of(w, Vault.of(own), connection.id))
    assert one.secret.get_secret_value() == TOKEN
    with psycopg.connect(database_url) as database:
        database.execute("UPDATE credentials SET secret = 'damaged'")
    with pytest.raises(VaultError):
        run(own, lambda w: actions.rekey(own, w))
    assert file.read_text().split(",")[2:] == before[-1:]  # nothing is forgotten while something does not open


def test_keys_that_others_can_read_are_theirs_no_more(settings, caplog):
    own = settings.model_copy(update={"secret_keys": None})
    connect(own)
    file = own.home / "secret_keys"
    assert caplog.messages == []
    file.chmod(0o644)
    run(own, lambda w: actions.rekey(own, w))
    assert file.stat().st_mode & 0o777 == 0o600
    [said] = caplog.messages
    assert said.startswith(f"Others on this machine could read the keys in {file} (mode 0644)")


# At once


def test_two_at_once_lose_no_update(settings):
    """Label, day of expiry and disabling from several sides: each change is there in the end, or was refused."""
    connection = connect(settings)
    day = date(2030, 1, 31)

    async def work(warehouse: Warehouse) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(actions.update, settings, warehouse, connection, 1, Changes(label="new"))
            group.start_soon(
                actions.update, settings, warehouse, connection, 1, Changes(expires=True, expiration_date=day)
            )
            group.start_soon(actions.disable, warehouse, connection, 1, "resting")

    run(settings, work)
    [row] = stored(settings)
    assert (row[2], row[6], row[8]) == ("new", day, "resting")


def test_a_check_does_not_undo_a_disabling_that_came_meanwhile(settings, sandbox):
    connection = connect(settings)
    run(settings, lambda w: actions.disable(w, connection, 1, "before"))
    sandbox.faults.latency = 0.1

    async def work(warehouse: Warehouse) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(actions.check, settings, warehouse, connection)
            await anyio.sleep(0.15)
            await credentials.disable(warehouse, 1, "no-op")
            async with warehouse.transaction() as transaction:
                await transaction.execute(
                    "UPDATE credentials SET disabled_reason = 'later', updated_at = clock_timestamp()"
                )

    run(settings, work)
    assert stored(settings)[0][8] == "later"


def test_the_same_secret_added_twice_at_once_is_one_credential(settings):
    connection = connect(settings)

    async def work(warehouse: Warehouse) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(actions.add_fields, settings, warehouse, connection, _fields(SECOND))

    run(settings, work)
    assert len([row for row in stored(settings) if row[9] is None]) == 2


def _fields(token: str) -> Fields:
    return Fields(secrets={"api_token": SecretStr(token)})


def test_expired_credentials_are_not_used(settings, database_url):
    connection = connect(settings)
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    with pytest.raises(VerificationFailed, match="expired on"):
        run(settings, lambda w: actions.update(settings, w, connection, 1, Changes("", {}, {}, True, yesterday)))
    with psycopg.connect(database_url) as database:
        database.execute("UPDATE credentials SET expiration_date = current_date - 1")
    assert run(settings, lambda w: actions.show(w, connection, 1)).expired
    assert run(settings, lambda w: credentials.usable_ids(w, connection.id)) == set()
    [checked] = run(settings, lambda w: actions.check(settings, w, connection))
    assert checked.verdict.failure.code == "invalid_credentials"


def test_requests_of_a_verification_count_in_the_budget(settings, sandbox):
    def booked() -> dict[str, int]:
        budgets = run(settings, lambda w: headroom(w, settings.budget_window))
        return {name: budget.used for name, budget in budgets.items()}

    def sent() -> int:
        count = sandbox.requests.count
        sandbox.requests.reset()
        return int(count)

    connection = connect(settings)
    token = sent()
    assert booked() == {"credential:1": token}
    connect(settings, API_TOKEN, EMAIL)
    account = f"account:{EMAIL}"
    of_account = sent()
    assert booked() == {"credential:1": token, account: of_account}
    with pytest.raises(VerificationFailed):
        connect(settings, "ATATT3xWrong", EMAIL)
    of_account += sent()
    run(settings, lambda w: actions.check(settings, w, connection, 1))
    token += sent()
    run(settings, updating(settings, connection, Changes(label="other")))
    token += sent()
    assert booked() == {"credential:1": token, account: of_account}


def test_connections_are_disabled_removed_and_made_anew_in_any_case_of_the_name(
    environment, sandbox, run_cli, database_url
):
    env = environment | {"BITBUCKET_API_URL": sandbox.url, "BITBUCKET_TOKEN": TOKEN}

    def cli(*arguments: str, expected: int = 0) -> str:
        done = run_cli(*arguments, env=env)
        assert done.returncode == expected, done.stderr
        return str(done.stdout + done.stderr)

    cli("connect", "acme", "--name", "Acme Ltd.")
    cli("connections", "disable", "acme", "--reason", "moving house")
    assert "Acme Ltd.  (disabled: moving house" in cli("connections", "list")
    sandbox.requests.reset()
    assert "is disabled: moving house. Enable it" in " ".join(cli("sync", "acme", expected=1).split())
    assert sandbox.requests.count == 0
    cli("connect", "acme")  # which enables it, and keeps its name
    assert "Acme Ltd.  (verified" in cli("connections", "list")
    cli("connections", "disable", "acme")
    cli("connections", "enable", "acme")
    with psycopg.connect(database_url) as database:
        database.execute("DELETE FROM dagster.dynamic_partitions")  # as a click in Dagster's UI does
    cli("sync", "Acme")
    cli("connections", "remove", "ACME", "--yes")
    assert "has no connection of type bitbucket" in cli("connections", "enable", "acme", expected=1)
    assert "is not connected" in " ".join(cli("sync", "acme", expected=1).split())
    assert "No workspace is connected" in cli("connections", "list")
    assert "Workspace ACME is connected" in cli("connect", "ACME")  # anew, and spelled differently
    refused = cli("connect", "acme", expected=1)
    assert "under the name ACME" in refused
    assert "dx-dagster credentials add ACME" in refused
    [shown] = json.loads(cli("status", "--json"))["workspaces"]
    assert shown["workspace"] == "ACME"
    assert shown["rows"]["bitbucket_pulls"] > 0, "what was imported under the other spelling"


def test_what_an_import_takes_is_extrapolated_and_never_fails_a_connection(settings):
    with Sandbox(WorldConfig(repositories=130, pull_requests=300, members=5)) as sandbox:
        there = settings.model_copy(update={"bitbucket_api_url": sandbox.url})
        connection = connect(there, sandbox.token.secret)
        before = sandbox.requests.count
        found = run(there, lambda w: expect(there, w, connection))
        assert sandbox.requests.count - before <= MOST_REQUESTS
        assert (found.repositories, found.is_sample) == (130, True)
        assert 50 < found.pull_requests < 1200
        assert found.sentence.startswith("130 repositories, about ")
        assert run(there, lambda w: connections.get(w, connection.id)).expected["requests"] == found.requests

        sandbox.faults.on("/pullrequests", 403)
        blind = run(there, lambda w: expect(there, w, connection))
        assert blind.sentence == "130 repositories. Bitbucket does not say how many pull requests they have."
        sandbox.faults.on("/repositories/acme", 500)
        assert run(there, lambda w: expect(there, w, connection)).repositories is None
    large = Expected(900, 40_312, True, 15_694, 400.0, 1000)
    assert large.sentence == (
        "900 repositories, about 40,000 pull requests: about 16,000 requests, 7 min; at 1,000 requests an hour within "
        "about 16 hours."
    )
