"""The reference page of the Data Cloud API, rendered from its OpenAPI document."""

from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse

from dx_dagster.api.pages.rendering import render

routes = APIRouter(include_in_schema=False)


@routes.get("/docs")
async def reference(request: Request) -> HTMLResponse:
    app: FastAPI = request.app
    document = app.openapi()
    methods = [
        {"verb": verb.upper(), "path": path, **operation, "body": _body(operation)}
        for path, operations in document["paths"].items()
        for verb, operation in operations.items()
        if path.startswith("/api/")
    ]
    base = str(request.base_url).rstrip("/")
    return render(request, "reference.html", csrf_cookie="none", methods=methods, base=base)


def _body(operation: dict[str, Any]) -> dict[str, Any]:
    """Descriptions of arguments by name; a nested name begins with its parent's."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    found: dict[str, Any] = {}
    for name, schema in content.get("schema", {}).get("properties", {}).items():
        if "properties" in schema:
            found |= {f"{name}.{inner}": one.get("description", "") for inner, one in schema["properties"].items()}
        else:
            found[name] = schema.get("description", "")
    return found
