"""One database, one set of keys: an installation with other ones is refused before it does anything."""

from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from dx_dagster.cli.ports import free_port
from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster.sandbox.tokens import Token
from dx_dagster.settings import Settings
from dx_dagster_tests.bad_input.telling import paragraph
from dx_dagster_tests.conftest import RunCli
from dx_dagster_tests.delivering import SECRET, give_secret

FIRST, SECOND = "ATCTT3xWorkspaceTokenOfTheKeys0001", "ATCTT3xWorkspaceTokenOfTheKeys0002"
Env = dict[str, str]


@pytest.fixture
def sandbox():
    with Sandbox(WorldConfig(repositories=2, pull_requests=3, members=3), tokens=[Token(FIRST), Token(SECOND)]) as one:
        yield one


@pytest.fixture
def own(environment: Env, sandbox: Sandbox, run_cli: RunCli) -> Env:
    """An installation whose database holds a credential and a webhook secret."""
    env = environment | {"BITBUCKET_API_URL": sandbox.url, "BITBUCKET_TOKEN": FIRST}
    assert run_cli("connect", "acme", env=env).returncode == 0
    names = ("DX_HOME", "DX_DATABASE_URL", "DX_SECRET_KEYS")
    give_secret(Settings.model_validate({name: env[name] for name in names}), "acme", SECRET)
    return env


def other_home(env: Env, folder: Path, keys: str = "") -> Env:
    kept = {name: value for name, value in env.items() if name != "DX_SECRET_KEYS"}
    return kept | {"DX_HOME": str(folder)} | ({"DX_SECRET_KEYS": keys} if keys else {})


def commands() -> list[tuple[str, ...]]:
    ports = ("--ui-port", str(free_port()), "--api-port", str(free_port()))
    return [("up", *ports), ("serve", "--port", str(free_port())), ("sync", "acme")]


def test_a_database_with_secrets_of_other_keys_is_refused(own: Env, run_cli: RunCli, tmp_path: Path):
    other = other_home(own, tmp_path / "other", Fernet.generate_key().decode())
    without = other_home(own, tmp_path / "without")
    for command in commands():
        paragraph(
            run_cli(*command, env=other), "2 in all", "The keys of DX_SECRET_KEYS open none", "connections remove"
        )
        paragraph(run_cli(*command, env=without), f"{tmp_path}/without/secret_keys does not exist")
    assert not (tmp_path / "without" / "secret_keys").exists(), "it would be in the way of the right one"
    # Whatever was up before, or asks nothing first, does not store its own beside them.
    paragraph(run_cli("credentials", "add", "acme", env=other | {"BITBUCKET_TOKEN": SECOND}), "2 in all")
    # And there is a way on where the keys are lost.
    assert run_cli("connections", "remove", "acme", "--yes", env=other).returncode == 0
    assert run_cli("connect", "acme", env=other).returncode == 0
    assert run_cli("verify", "acme", env=other).returncode == 0


def test_installations_with_the_same_keys_share_a_database(own: Env, run_cli: RunCli, tmp_path: Path):
    for home, command in ((own, "verify"), (other_home(own, tmp_path / "second", own["DX_SECRET_KEYS"]), "sync")):
        done = run_cli(command, "acme", env=home)
        assert done.returncode == 0, done.stderr
        assert "open none" not in done.stderr


def test_secrets_of_a_forgotten_key_are_named_and_the_others_used(own: Env, run_cli: RunCli):
    both = own | {"DX_SECRET_KEYS": f"{Fernet.generate_key().decode()},{own['DX_SECRET_KEYS']}"}
    assert run_cli("credentials", "add", "acme", env=both | {"BITBUCKET_TOKEN": SECOND}).returncode == 0
    newer = own | {"DX_SECRET_KEYS": both["DX_SECRET_KEYS"].partition(",")[0]}
    done = run_cli("sync", "acme", env=newer)
    assert done.returncode == 0, done.stderr
    assert "credential 1 of workspace acme, webhook secret 1 of workspace acme. Put" in done.stderr
    assert "of the 3 stored secrets" in done.stderr


def test_the_first_secret_decides_whose_database_it_is(environment: Env, sandbox: Sandbox, run_cli: RunCli, tmp_path):
    """Both have made keys for themselves while the database was empty."""
    own = environment | {"BITBUCKET_API_URL": sandbox.url, "BITBUCKET_TOKEN": FIRST}
    one, two = (other_home(own, tmp_path / name) for name in ("one", "two"))
    for home in (one, two):
        assert run_cli("credentials", "rekey", env=home).returncode == 0
    assert run_cli("connect", "acme", env=one).returncode == 0
    for command in ("connect", "sync"):
        paragraph(run_cli(command, "acme", env=two), "1 in all", f"The keys of {tmp_path}/two/secret_keys")
    assert run_cli("verify", "acme", env=one).returncode == 0


def test_no_key_is_made_in_the_place_of_a_lost_one(environment: Env, sandbox: Sandbox, run_cli: RunCli):
    env = {name: value for name, value in environment.items() if name != "DX_SECRET_KEYS"}
    env |= {"BITBUCKET_API_URL": sandbox.url, "BITBUCKET_TOKEN": FIRST, "DX_PUBLIC_URL": "https://dx.example.com"}
    assert run_cli("connect", "acme", env=env).returncode == 0
    file = Path(env["DX_HOME"]) / "secret_keys"
    kept = file.read_text()
    file.unlink()
    for command in (
        ("credentials", "add", "acme"),
        ("connect", "acme"),
        ("verify", "acme"),
        ("webhooks", "install", "acme"),
        ("credentials", "rekey"),
        ("sync", "acme"),
    ):
        paragraph(run_cli(*command, env=env | {"BITBUCKET_TOKEN": SECOND}), f"{file} does not exist")
        assert not file.exists(), command
    file.write_text("no key\n")
    file.chmod(0o600)
    paragraph(run_cli("verify", "acme", env=env), f"{file} holds something that is no Fernet key")
    file.write_text(kept)
    assert run_cli("verify", "acme", env=env).returncode == 0
