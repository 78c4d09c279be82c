"""A Bitbucket Cloud on loopback with a made-up, living workspace: for `dx-dagster demo` and for tests."""

from dx_dagster.sandbox.config import WorldConfig
from dx_dagster.sandbox.faults import Faults
from dx_dagster.sandbox.running import Sandbox
from dx_dagster.sandbox.tokens import RateLimit, Token
from dx_dagster.sandbox.truth import truth
from dx_dagster.sandbox.world import World

__all__ = ["Faults", "RateLimit", "Sandbox", "Token", "World", "WorldConfig", "truth"]
