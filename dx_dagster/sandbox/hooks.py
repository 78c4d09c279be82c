"""Webhook subscriptions of workspace and repositories. Those of a living world get deliveries (`hook_sender.py`)."""

import json
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from dx_dagster.sandbox import rendering
from dx_dagster.sandbox.answers import Refused, error
from dx_dagster.sandbox.calls import IncomingCall, encode
from dx_dagster.sandbox.rendering import Json

LONGEST_SECRET = 128
CHANGEABLE = ("description", "url", "active", "events")


@dataclass(eq=False)
class Subscription:
    uuid: str
    created_at: str
    shown: dict[str, Any]
    secret: str | None = field(default=None, repr=False)


class Hooks:
    """The handlers and the stored subscriptions. Reading needs `webhook`, see `tokens.NEEDS`."""

    def __init__(self) -> None:
        self.by_subject: dict[str, dict[str, Subscription]] = {}

    def secret(self, subject: str, hook: str) -> str | None:
        """The secret of a hook, which no answer ever holds. `subject` is the uuid of workspace or repository."""
        return self.by_subject[subject][hook].secret

    def list(self, call: IncomingCall) -> bytes:
        hooks, subject, base = self._subject(call)
        return call.page(
            call.faults.left_of("hooks", list(hooks.values())), lambda hook, _: encode(_render(hook, subject, base))
        )

    def create(self, call: IncomingCall) -> tuple[int, bytes]:
        hooks, subject, base = self._subject(call)
        hook = Subscription(
            f"{{{uuid.uuid4()}}}", f"{call.world.now:%Y-%m-%dT%H:%M:%S.%fZ}", {"active": True, "description": ""}
        )
        _change(hook, call.body, whole=True)
        hooks[hook.uuid] = hook
        return 201, encode(_render(hook, subject, base))

    def get(self, call: IncomingCall) -> bytes:
        _, subject, base = self._subject(call)
        return encode(_render(self._find(call), subject, base))

    def change(self, call: IncomingCall) -> bytes:
        hook = self._find(call)
        _change(hook, call.body, whole=False)
        return self.get(call)

    def delete(self, call: IncomingCall) -> tuple[int, bytes]:
        hook = self._find(call)
        del self._subject(call)[0][hook.uuid]
        return 204, b""

    def _subject(self, call: IncomingCall) -> tuple[dict[str, Subscription], Json, str]:
        if "repository" in call.path:
            repository = call.repository()
            hooks = self.by_subject.setdefault(repository.uuid, {})
            subject = rendering.repository_reference(repository)
        else:
            call.check_workspace()
            hooks = self.by_subject.setdefault(call.world.uuid, {})
            subject = rendering.workspace(call.world, short=True)
        return hooks, subject, subject["links"]["self"]["href"]

    def _find(self, call: IncomingCall) -> Subscription:
        hook = self._subject(call)[0].get(call.path["hook"])
        if hook is None:
            raise Refused(404, error(f"Webhook {call.path['hook']} not found"))
        return hook


def _change(hook: Subscription, body: bytes, *, whole: bool) -> None:
    """Changes what the body names: an absent secret stays, null or "" removes it."""
    try:
        sent = json.loads(body)
    except ValueError:
        raise Refused(400, error("Bad request")) from None
    url, secret = sent.get("url", hook.shown.get("url")), sent.get("secret")
    missing = {name: ["required key not provided"] for name in ("url", "events") if whole and not sent.get(name)}
    if not missing and urlsplit(url or "").scheme not in {"http", "https"}:
        missing = {"url": ["Enter a valid URL."]}
    if secret and len(secret) > LONGEST_SECRET:
        missing = {"secret": [f"Ensure this value has at most {LONGEST_SECRET} characters."]}
    if missing:
        raise Refused(400, error("Bad request", fields=missing))
    hook.shown |= {name: sent[name] for name in CHANGEABLE if name in sent}
    if "secret" in sent:
        hook.secret = secret or None


def _render(hook: Subscription, subject: Json, base: str) -> Json:
    return {
        "type": "webhook_subscription",
        "uuid": hook.uuid,
        **hook.shown,
        "secret_set": hook.secret is not None,
        "created_at": hook.created_at,
        "subject": subject,
        "subject_type": subject["type"],
        "read_only": False,
        "history_enabled": False,
        "skip_cert_verification": False,
        "source": None,
        "links": rendering.links(self=f"{base}/hooks/{quote(hook.uuid)}"),
    }
