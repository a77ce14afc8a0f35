"""What a scenario is: one request, what must come of it, and what it is made with."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ext_authz.demo.caller import Answer, Call
from ext_authz.demo.oauth_flow import OAuthFlow
from ext_authz.demo.stack import Stack
from ext_authz.errors import Reason

__all__ = ["Check", "Scenario", "Stage", "upstream_saw"]

Check = Callable[[Answer], str | None]
"""Looks at an answer beyond its status; says what is wrong with it, or None."""


@dataclass(slots=True)
class Stage:
    """A stack, and the tokens that were fetched from it so far.

    Attributes:
        stack: where to send requests.
        oauth: how to get tokens.
        app: alice's first token response in the app, and the one after its certificate was renewed.
    """

    stack: Stack
    oauth: OAuthFlow
    app: list[dict[str, str]] = field(default_factory=list)
    _tokens: dict[tuple[str, ...], str] = field(default_factory=dict)

    def token(self, client_id: str = "mywebsite", credential: str = "mywebsite", **parameters: str) -> str:
        """An access token by `client_credentials`; the same one for the same question."""
        question = (client_id, credential, *map(str, sorted(parameters.items())))
        if question not in self._tokens:
            self._tokens[question] = self.oauth.client_credentials(client_id, credential, **parameters)
        return self._tokens[question]

    def forget_tokens(self) -> None:
        """Ask anew from here on."""
        self._tokens.clear()

    def app_tokens(self) -> dict[str, str]:
        """Alice's token response in the app, for the certificate `app`."""
        if not self.app:
            self.app.append(self.oauth.authorization_code("app", "app", "account"))
        return self.app[0]

    def renewed_app_tokens(self) -> dict[str, str]:
        """The token response for her refresh token, for the certificate `app-renewed`."""
        if len(self.app) < 2:
            self.app.append(self.oauth.refresh("app", "app-renewed", self.app_tokens()["refresh_token"]))
        return self.app[1]

    def call(
        self,
        target: str,
        *,
        at: str = "billing",
        method: str = "GET",
        certificate: str | None = None,
        token: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        host: str | None = None,
        server_name: str | None = None,
    ) -> Call:
        """A request to a listener, with a client certificate and a bearer token by choice."""
        authorization = () if token is None else (("Authorization", f"Bearer {token}"),)
        return Call(
            self.stack.endpoints[at],
            target,
            method=method,
            headers=authorization + headers,
            credential=None if certificate is None else self.stack.credential(certificate),
            host=host,
            server_name=server_name,
        )


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table.

    Attributes:
        title: what happens, in a few words.
        request: makes the request; may fetch tokens and turn keys first.
        status: the HTTP status that must come back.
        reason: the reason that ext-authz must log; None where it is not asked.
        check: looks at the answer.
    """

    title: str
    request: Callable[[Stage], Call]
    status: int
    reason: Reason | None
    check: Check | None = None


def upstream_saw(**expected: str | None) -> Check:
    """The upstream received these headers once with this value, or not at all (None); `_` in a name stands for `-`."""

    def check(answer: Answer) -> str | None:
        for name, value in expected.items():
            header = name.replace("_", "-")
            seen = list(answer.upstream_headers(header))
            if seen != ([] if value is None else [value]):
                return f"upstream saw {header}: {seen}"
        return None

    return check
