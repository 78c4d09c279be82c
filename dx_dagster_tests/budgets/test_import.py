"""A limit, a revoked token or an expiry date is no reason for an import to lose anything."""

import math
from datetime import date, timedelta

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from dx_dagster.bitbucket import Credential, CredentialPool, CredentialsExhausted
from dx_dagster.importer.absence import NothingReadError
from dx_dagster.importer.session import NotConnectedError, connection_in_service, open_pool
from dx_dagster.insights import building, reviews
from dx_dagster.sandbox import RateLimit, Sandbox, Token, truth
from dx_dagster.settings import Settings
from dx_dagster.warehouse.budgets import SharedLedger, headroom
from dx_dagster.warehouse.connections import connections, credentials
from dx_dagster.warehouse.connections.credentials import CredentialType, NewCredential
from dx_dagster.warehouse.connections.vault import Vault
from dx_dagster.warehouse.database import Warehouse
from dx_dagster_tests.budgets.drawing import SMALL, TINY, access, statuses
from dx_dagster_tests.comparing import differences
from dx_dagster_tests.importing import Heard, import_all

pytestmark = pytest.mark.anyio


@pytest.fixture
def configured(database_url: str) -> Settings:
    return Settings.model_validate(
        {"DX_DATABASE_URL": database_url, "DX_SECRET_KEYS": Fernet.generate_key().decode(), "DX_BUDGET_WINDOW": 3.0}
    )


async def connected(
    configured: Settings, warehouse: Warehouse, sandbox: Sandbox, expires: date | None = None
) -> Settings:
    """The sandbox's tokens stored as if they had been verified long ago."""
    async with warehouse.transaction() as transaction:
        connection = await connections.store(transaction, "acme", "bitbucket", "acme", {})
        for token in sandbox.tokens:
            kind: CredentialType = "api_token" if token.email else "access_token"
            new = NewCredential(kind, token.label, SecretStr(token.secret), token.email, expires)
            await credentials.add(transaction, Vault.of(configured), connection, new)
    return configured.model_copy(update={"bitbucket_api_url": sandbox.url})


async def import_with_reviews(settings: Settings, warehouse: Warehouse, heard: Heard) -> None:
    await import_all(settings, warehouse, heard)
    row = await warehouse.row("SELECT id::text FROM bitbucket_workspaces")
    await building.run(warehouse, reviews.BUILD, row.id)


async def test_a_limit_in_the_middle_of_a_listing_loses_nothing(
    configured: Settings, warehouse: Warehouse, database_url: str
) -> None:
    with Sandbox(SMALL, tokens=access(1), limits=RateLimit(20, 2.0)) as sandbox:
        heard = Heard()
        await import_with_reviews(await connected(configured, warehouse, sandbox), warehouse, heard)
        assert statuses(sandbox)[429] == 0
        assert sandbox.requests.count > 80  # the limit was met more than once
        assert differences(database_url, truth(sandbox.world)) == {}
    waits = heard.about("waiting")
    assert waits
    assert all("s, until " in one for one in waits)
    assert (
        len(waits) <= math.ceil(sandbox.requests.count / 20) * 3
    )  # told once for each rest, not by everyone who waits


async def test_a_limit_that_the_api_never_tells_is_met_and_survived(
    configured: Settings, warehouse: Warehouse, database_url: str
) -> None:
    tokens = [Token(f"ATATT-{number}", "api", "ann@acme.example", label=f"Ann's {number}") for number in (1, 2)]
    with Sandbox(SMALL, tokens=tokens, limits=RateLimit(50, 3.0, count_rejected=True)) as sandbox:
        heard = Heard()
        await import_with_reviews(await connected(configured, warehouse, sandbox), warehouse, heard)
        refused = statuses(sandbox)[429]
        assert 0 < refused < sandbox.requests.count / 3
        assert differences(database_url, truth(sandbox.world)) == {}
    assert list(await headroom(warehouse, 3.0)) == ["account:ann@acme.example"]


async def test_one_revoked_in_the_middle_and_the_import_goes_on(
    configured: Settings, warehouse: Warehouse, database_url: str
) -> None:
    with Sandbox(SMALL, tokens=access(1, 2, 3)) as sandbox:

        def revoke(requests: int) -> None:
            sandbox.tokens[1].revoked = requests > 20

        heard = Heard(on_progress=revoke)
        await import_with_reviews(await connected(configured, warehouse, sandbox), warehouse, heard)
        assert differences(database_url, truth(sandbox.world)) == {}
    stored = await warehouse.rows("SELECT label, disabled_reason FROM credentials WHERE disabled_at IS NOT NULL")
    assert [row.label for row in stored] == ["token 2"]
    assert "Token is invalid" in stored[0].disabled_reason
    assert len(heard.about("'token 2' is disabled")) == 1


async def test_credentials_that_see_different_repositories_import_them_all_together(
    configured: Settings, warehouse: Warehouse, database_url: str
) -> None:
    with Sandbox(SMALL, tokens=access(1, 2, 3, 4)) as sandbox:
        slugs = [one.slug for one in sandbox.world.repositories]
        chosen = await connected(configured, warehouse, sandbox)
        one, other, elsewhere, revoked = sandbox.tokens
        one.shown, other.shown, elsewhere.workspaces = slugs[:4], slugs[4:], ["elsewhere"]
        for _ in range(2):
            await import_with_reviews(chosen, warehouse, Heard())
            assert differences(database_url, truth(sandbox.world)) == {}
            # Who is refused a repository is not asked for it again.
            assert statuses(sandbox)[403] + statuses(sandbox)[404] < 3 * len(slugs) + 20
            sandbox.requests.reset()
            revoked.revoked = True


async def test_a_budget_that_rests_keeps_no_other_from_going_on(
    configured: Settings, warehouse: Warehouse, database_url: str
) -> None:
    with Sandbox(SMALL, tokens=access(1, 2)) as sandbox:
        chosen = await connected(configured, warehouse, sandbox)
        resting, other = await warehouse.rows("SELECT id, label FROM credentials ORDER BY id")
        await SharedLedger(warehouse, chosen.budget_window).limited(f"credential:{resting.id}", 3600)
        await import_with_reviews(chosen, warehouse, Heard())
        assert {request.token for request in sandbox.requests} == {other.label}
        assert differences(database_url, truth(sandbox.world)) == {}


async def test_with_no_credential_left_the_import_fails_with_invalid_credentials(
    configured: Settings, warehouse: Warehouse
) -> None:
    with Sandbox(TINY, tokens=access(1, 2)) as sandbox:
        chosen = await connected(configured, warehouse, sandbox)
        for token in sandbox.tokens:
            token.revoked = True
        with pytest.raises(NothingReadError, match="no credential is left") as refused:
            await import_with_reviews(chosen, warehouse, Heard())
        assert refused.value.code == "invalid_credentials"
        with pytest.raises(NotConnectedError, match="invalid_credentials"):
            await import_with_reviews(chosen, warehouse, Heard())


async def test_an_expiry_date_is_warned_of_two_weeks_ahead_and_heeded(
    configured: Settings, warehouse: Warehouse
) -> None:
    today = date.today()  # noqa: DTZ011
    with Sandbox(TINY, tokens=access(1)) as sandbox:
        chosen = await connected(configured, warehouse, sandbox, today + timedelta(days=13))
        heard, connection = Heard(), await connection_in_service(warehouse, "acme")
        await open_pool(chosen, warehouse, heard, connection)
        assert len(heard.warnings) == 1
        assert f"{today + timedelta(days=13)}" in heard.warnings[0]
        assert "dx-dagster credentials add acme" in heard.warnings[0]
        for later, warned in ((40, 0), (-2, None)):
            async with warehouse.transaction() as transaction:
                await transaction.execute("UPDATE credentials SET expiration_date = %s", [today + timedelta(later)])
            heard = Heard()
            if warned is None:
                with pytest.raises(NotConnectedError):
                    await open_pool(chosen, warehouse, heard, connection)
            else:
                await open_pool(chosen, warehouse, heard, connection)
            assert heard.warnings == []


async def test_a_credential_that_expires_during_a_run_is_taken_out(warehouse: Warehouse) -> None:
    expired = Credential(1, "old", "access_token", SecretStr("t1"), expires=date(2026, 1, 1))
    gone: list[str] = []

    async def told(credential: Credential, reason: str) -> None:
        gone.append(f"{credential.label}: {reason}")

    pool = CredentialPool([expired], SharedLedger(warehouse), told)
    with pytest.raises(CredentialsExhausted, match="it expired on 2026-01-01"):
        await pool.take()
    assert gone == ["old: it expired on 2026-01-01"]
