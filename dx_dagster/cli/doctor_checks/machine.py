"""Checks of what is on this machine: settings, home, clock and ports."""

import os
from datetime import timedelta

from dx_dagster.cli import running
from dx_dagster.cli.doctor_checks.examination import Examination, Finding, State, unknown

_CLOCKS_APART = timedelta(seconds=60)


def check_settings(examination: Examination) -> list[Finding]:
    if examination.complaints:
        return [Finding("settings", State.BAD, text) for text in examination.complaints]
    changed = ", ".join(examination.settings.changed())
    return [Finding("settings", State.GOOD, f"Not at their defaults: {changed}." if changed else "All are defaults.")]


def check_home(examination: Examination) -> list[Finding]:
    home = examination.settings.home
    if not home.exists():
        if not examination.is_embedded:
            return [
                Finding("home", State.GOOD, f"{home} does not exist yet. The first command that needs it makes it.")
            ]
        return [Finding("home", State.BAD, f"{home} does not exist yet.")]
    if not home.is_dir():
        return [Finding("home", State.BAD, f"{home} is not a folder. Set DX_HOME to a folder.")]
    if not os.access(home, os.W_OK | os.X_OK):
        return [
            Finding("home", State.BAD, f"{home} is not writable. Make it writable, or set DX_HOME to a folder that is.")
        ]
    if at_work := running.running_in(home):
        return [Finding("home", State.GOOD, f"{home}, in use by {at_work}.")]
    return [Finding("home", State.GOOD, f"{home}. Neither up nor demo runs on it.")]


def check_clock(examination: Examination) -> list[Finding]:
    if not examination.times:
        return [unknown("clock", "Neither the database nor the API answers.")]
    found = []
    for server, theirs, ours in examination.times:
        apart = ours - theirs
        if abs(apart) > _CLOCKS_APART:
            how = f"{abs(apart.total_seconds()):,.0f} s {'ahead of' if apart > timedelta() else 'behind'}"
            told = f"This machine's clock is {how} that of the {server}. Synchronize it, for example with NTP."
            found.append(Finding("clock", State.BAD, told))
    servers = " and ".join(server for server, _, _ in examination.times)
    return found or [Finding("clock", State.GOOD, f"Within {_CLOCKS_APART.seconds} s of the clock of the {servers}.")]


def check_ports(examination: Examination) -> list[Finding]:
    from dx_dagster.cli.errors import CommandError
    from dx_dagster.cli.ports import LOOPBACK, require_free
    from dx_dagster.cli.services import services

    at_work = running.running_in(examination.settings.home)
    if at_work is not None and at_work.ui_port and at_work.api_port:
        found = []
        for service in services(examination.settings, at_work.ui_port, at_work.api_port, at_work.ui_host):
            if service.health is None:
                continue
            where = f"{service.name} on port {service.health[0]}"
            if service.is_healthy():
                found.append(Finding("ports", State.GOOD, f"{where} is ready."))
            else:
                log = examination.settings.log_folder / f"{service.name}.log"
                found.append(Finding("ports", State.BAD, f"{where} is not ready. Its log is {log}."))
        return found
    found = []
    for port, option in ((examination.ui_port, "--ui-port"), (examination.api_port, "--api-port")):
        try:
            require_free(LOOPBACK, port, option=option)
        except CommandError as error:
            found.append(Finding("ports", State.BAD, str(error).replace("Nothing was started. ", "")))
    free = f"{examination.ui_port} and {examination.api_port} are free for dx-dagster up."
    return found or [Finding("ports", State.GOOD, free)]
