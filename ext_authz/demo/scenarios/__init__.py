"""The table of the demo, by subject."""

from ext_authz.demo.scenario import Scenario
from ext_authz.demo.scenarios.binding import BINDING
from ext_authz.demo.scenarios.identity import IDENTITY
from ext_authz.demo.scenarios.requests import REQUESTS
from ext_authz.demo.scenarios.routes import ROUTES
from ext_authz.demo.scenarios.tokens import TOKENS

__all__ = ["SCENARIOS"]

SCENARIOS: tuple[tuple[str, tuple[Scenario, ...]], ...] = (
    ("A token works on the connection it was issued to", BINDING),
    ("Who the caller is", IDENTITY),
    ("What the token says", TOKENS),
    ("How the request is written", REQUESTS),
    ("Where the request goes", ROUTES),
)
