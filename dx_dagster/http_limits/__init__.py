"""Limits of the HTTP servers: bytes and time for a request, and connections for a client.

uvicorn has deadlines for idle connections only. These subclasses of its protocols enforce the limits before a request
reaches an application. Above the limit of connections, those with an incomplete request are closed first: Bitbucket
sends a delivery in one piece, so deliveries still arrive.
"""

from dx_dagster.http_limits.limits import Limits
from dx_dagster.http_limits.protocol import Options, options
from dx_dagster.http_limits.rare_lines import RareLines

__all__ = ["Limits", "Options", "RareLines", "options"]
