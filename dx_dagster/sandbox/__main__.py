"""`python -m dx_dagster.sandbox`: the sandbox as a process of its own."""

import argparse
import json
import os
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path

from dx_dagster.sandbox.config import FIRST_NOW, WorldConfig
from dx_dagster.sandbox.faults import Faults
from dx_dagster.sandbox.running import Sandbox
from dx_dagster.sandbox.story import Story, people_file
from dx_dagster.sandbox.tokens import RateLimit, Token


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m dx_dagster.sandbox", description=__doc__)
    default = WorldConfig()
    made.add_argument("--port", type=int, default=0, help="0 takes a free one")
    made.add_argument("--workspace", default=default.workspace)
    made.add_argument("--seed", type=int, default=default.seed)
    made.add_argument("--repositories", type=int, default=default.repositories)
    made.add_argument("--pull-requests", type=int, default=default.pull_requests)
    made.add_argument("--members", type=int, default=default.members)
    made.add_argument(
        "--into-other-branches",
        type=float,
        metavar="SHARE",
        help="so many of the pull requests are into long-lived branches beside the default one",
    )
    made.add_argument("--story", action="store_true", help="weeks differ from one another, for charts")
    made.add_argument("--people-file", type=Path, help="with --story, write who is in which team here")
    made.add_argument(
        "--now",
        type=_moment,
        default=FIRST_NOW,
        help='where the clock starts, ISO 8601 or "now"; with --live and "now" it follows that of this machine',
    )
    made.add_argument("--follow-clock", action="store_true", help="with --live, follow the clock of this machine")
    made.add_argument(
        "--live", type=float, metavar="SECONDS", help="one random event every so often; hooks are sent their deliveries"
    )
    made.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    made.add_argument(
        "--serves", type=int, metavar="REQUESTS", help="so many are answered at once, and the others wait"
    )
    made.add_argument("--hourly-limit", type=int, default=100_000)
    made.add_argument("--window", type=float, default=3600.0, metavar="SECONDS")
    made.add_argument("--token-file", type=Path, help="write the token here, mode 0600, instead of printing it")
    return made


def _moment(text: str) -> datetime | None:
    if text == "now":
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def main() -> None:
    """Prints one line of JSON when ready, then serves until SIGTERM or SIGINT."""
    arguments = parser().parse_args()
    config = WorldConfig(
        arguments.workspace, arguments.seed, arguments.repositories, arguments.pull_requests, arguments.members,
        arguments.now, into_other_branches=arguments.into_other_branches, story=Story() if arguments.story else None,
    )  # fmt: skip
    ended = threading.Event()
    given = os.environ.get("SANDBOX_TOKEN")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    sandbox = Sandbox(
        config,
        tokens=[Token(given, label="workspace-token")] if given else None,
        faults=Faults(latency=arguments.latency, serves=arguments.serves),
        limits=RateLimit(arguments.hourly_limit, arguments.window),
        port=arguments.port,
        live=arguments.live,
        follows_clock=arguments.follow_clock,
    )
    email, _, jira_token = os.environ.get("SANDBOX_JIRA", "").partition(":")
    if jira_token:
        sandbox.jira.tokens.append(Token(jira_token, kind="api", email=email))
    with sandbox:
        ready = {"url": sandbox.url}
        if config.story and arguments.people_file:
            arguments.people_file.write_text(people_file(config.story, sandbox.world.people.members), encoding="utf-8")
        if arguments.token_file:
            _write_secret(arguments.token_file, sandbox.token.secret)
        elif not given:
            ready["token"] = sandbox.token.secret
        print(json.dumps(ready), flush=True)  # noqa: T201 - the line that whoever started us waits for
        ended.wait()


def _write_secret(path: Path, secret: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(secret)


if __name__ == "__main__":
    main()
