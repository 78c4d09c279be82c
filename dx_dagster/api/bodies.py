"""The limit on bodies of the API's methods and the pages' forms, far below that of the server (`http_limits`)."""

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dx_dagster.api.data_cloud.envelope import RefusedError

LARGEST_BODY = 256 * 1024  # users.setUserStatuses takes a thousand users


def _nowhere(_: str) -> bool:
    return False


class BodyLimit:
    """Ends a request whose body is too large or incomplete: reading the body raises `RefusedError`.

    The receiver of webhooks has a limit and answers of its own; `is_exempt` names its path.
    """

    def __init__(self, app: ASGIApp, is_exempt: Callable[[str], bool] = _nowhere) -> None:
        self.app, self._is_exempt = app, is_exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_exempt(scope["path"]):
            receive = _limited(receive)
        await self.app(scope, receive, send)


def _limited(receive: Receive) -> Receive:
    size, is_complete = 0, False

    async def limited() -> Message:
        nonlocal size, is_complete
        message = await receive()
        if message["type"] == "http.request":
            size += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if size > LARGEST_BODY:
                raise RefusedError("invalid_json", f"The body is larger than {LARGEST_BODY} bytes.")
        elif message["type"] == "http.disconnect" and not is_complete:
            raise RefusedError("invalid_json", "The body ended early.")
        return message

    return limited
