"""What a client may take of our HTTP servers: bytes and time for a request, and connections.

uvicorn has deadlines for idle connections alone. Its protocol is subclassed here: the limits hold before a request has
reached an application. When there are too many connections, those make room that have not sent their request yet: the
deliveries of Bitbucket are sent in one piece, and go on arriving.
"""

from dx_dagster.http_limits.limits import Limits
from dx_dagster.http_limits.protocol import Options, options
from dx_dagster.http_limits.rare_lines import RareLines

__all__ = ["Limits", "Options", "RareLines", "options"]
