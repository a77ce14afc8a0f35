"""The clients' side of OAuth: how a workload or an app gets its token from the demo's authorization server."""

import secrets
from urllib.parse import parse_qs, urlencode, urlsplit

from ext_authz.demo.caller import Answer, Call, send
from ext_authz.demo.oauth_grants import code_challenge
from ext_authz.demo.stack import Stack

__all__ = ["APP_REDIRECT_URI", "OAuthFlow"]

APP_REDIRECT_URI = "http://127.0.0.1:7777/callback"
"""RFC 8252 §7.3: a native app listens on loopback; the demo reads the code from the redirect itself."""

_FORM = ("content-type", "application/x-www-form-urlencoded")


class OAuthFlow:
    """Requests to the authorization server, over mutual TLS through Envoy."""

    def __init__(self, stack: Stack) -> None:
        """Against this stack."""
        self._stack = stack
        self._endpoint = stack.endpoints["auth"]

    def client_credentials(self, client_id: str, credential: str, **parameters: str) -> str:
        """An access token for a client by its certificate."""
        return self._token(credential, grant_type="client_credentials", client_id=client_id, **parameters)[
            "access_token"
        ]

    def authorization_code(self, client_id: str, credential: str, scope: str) -> dict[str, str]:
        """The token response for alice through a public client, which proves possession of its certificate."""
        verifier = secrets.token_urlsafe(32)
        query = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": APP_REDIRECT_URI,
            "scope": scope,
            "state": secrets.token_urlsafe(8),
            "code_challenge": code_challenge(verifier),
            "code_challenge_method": "S256",
        }
        redirect = self.get(f"/authorize?{urlencode(query)}")
        answer = parse_qs(urlsplit(redirect.headers["location"]).query)
        if answer.get("state") != [query["state"]] or answer.get("iss") != [self._stack.issuer]:
            raise ValueError("the authorization response is not the one that was asked for")
        return self._token(
            credential,
            grant_type="authorization_code",
            client_id=client_id,
            code=answer["code"][0],
            redirect_uri=APP_REDIRECT_URI,
            code_verifier=verifier,
        )

    def refresh(self, client_id: str, credential: str, refresh_token: str) -> dict[str, str]:
        """The token response for a refresh token, bound to the certificate that is presented now."""
        return self._token(credential, grant_type="refresh_token", client_id=client_id, refresh_token=refresh_token)

    def get(self, target: str) -> Answer:
        """A GET without a certificate."""
        return send(Call(self._endpoint, target), self._stack.path(self._stack.ca_file))

    def form(self, target: str, credential: str | None, **form: str) -> Call:
        """A POST of a form with a certificate, not sent yet."""
        return Call(
            self._endpoint,
            target,
            method="POST",
            headers=(_FORM,),
            credential=None if credential is None else self._stack.credential(credential),
            body=urlencode(form).encode(),
        )

    def post(self, target: str, credential: str | None, **form: str) -> Answer:
        """Send a form with a certificate."""
        return send(self.form(target, credential, **form), self._stack.path(self._stack.ca_file))

    def _token(self, credential: str, **form: str) -> dict[str, str]:
        answer = self.post("/token", credential, **form)
        if answer.status != 200:
            raise ValueError(f"the token endpoint answered {answer.status}: {answer.body.decode(errors='replace')}")
        return {name: str(value) for name, value in answer.json().items()}
