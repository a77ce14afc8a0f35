"""A small OAuth 2.0 authorization server whose tokens are bound to client certificates (RFC 8705).

It runs behind an Envoy that asks for client certificates, accepts any (`ACCEPT_UNTRUSTED`: a self-signed one is what
public clients have) and hands over the one whose key was proved in `x-forwarded-client-cert` (`SANITIZE_SET`). Whom a
certificate stands for is decided here. It listens on loopback for that Envoy alone, and its one user, alice, is always
signed in: what it shows is tokens, not passwords.

Grants: `client_credentials`, `authorization_code` with PKCE (RFC 7636), `refresh_token`, which binds the new access
token to the certificate that the client holds by then. Endpoints: metadata (RFC 8414), keys, authorization, token,
introspection (RFC 7662), revocation (RFC 7009), and `/keys/rotate` for its operator.
"""

import json
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from ext_authz.demo.arguments import single_argument
from ext_authz.demo.oauth_client import AuthenticationMethod, Client, ClientCertificate, TrustBundles, clients_from_file
from ext_authz.demo.oauth_grants import Authorization, Grants, SigningKeys, code_challenge
from ext_authz.demo.serving import Request, Response, serve_until_stopped

__all__ = ["AuthorizationServer", "serve_authorization_server"]

_USER = "alice"
_NO_STORE = ("cache-control", "no-store")
_Form = Mapping[str, str]


class _Refused(Exception):  # noqa: N818 - the protocol's own answer, not a fault
    """An error response of RFC 6749 §5.2."""

    def __init__(self, error: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.status = status


class AuthorizationServer:
    """All endpoints as one function from request to response."""

    def __init__(
        self, issuer: str, clients: Mapping[str, Client], bundles: TrustBundles, clock: Callable[[], float]
    ) -> None:
        """`issuer` is the URL at which clients reach it, without a trailing slash."""
        self.issuer = issuer
        self.keys = SigningKeys()
        self._clients = clients
        self._bundles = bundles
        self._clock = clock
        self._grants = Grants()
        self._routes: dict[tuple[str, str], Callable[[Request], Response]] = {
            ("GET", "/.well-known/oauth-authorization-server"): self._metadata,
            ("GET", "/jwks"): lambda _: _json(self.keys.jwks),
            ("GET", "/authorize"): self._authorize,
            ("POST", "/token"): self._token,
            ("POST", "/introspect"): self._introspect,
            ("POST", "/revoke"): self._revoke,
            ("POST", "/keys/rotate"): self._rotate,
        }

    def answer(self, request: Request) -> Response:
        """The response to one request, whatever it is."""
        route = self._routes.get((request.method, request.path))
        if route is None:
            return _json({"error": "not_found"}, 404)
        try:
            return route(request)
        except _Refused as refused:
            return _json({"error": refused.error}, refused.status)

    def _metadata(self, _: Request) -> Response:
        base = self.issuer
        return _json(
            {
                "issuer": base,
                "authorization_endpoint": f"{base}/authorize",
                "token_endpoint": f"{base}/token",
                "jwks_uri": f"{base}/jwks",
                "introspection_endpoint": f"{base}/introspect",
                "revocation_endpoint": f"{base}/revoke",
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code", "client_credentials", "refresh_token"],
                "token_endpoint_auth_methods_supported": [method.value for method in AuthenticationMethod],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
                "tls_client_certificate_bound_access_tokens": True,
            }
        )

    def _authorize(self, request: Request) -> Response:
        """RFC 6749 §4.1.1; without a redirect URI that is the client's, nothing is redirected."""
        query = _parameters(request.query)
        client = self._clients.get(query.get("client_id", ""))
        redirect_uri = query.get("redirect_uri", "")
        if client is None or redirect_uri not in client.redirect_uris:
            raise _Refused("invalid_request")
        answer = {"iss": self.issuer, **({"state": query["state"]} if "state" in query else {})}
        try:
            if query.get("response_type") != "code":
                raise _Refused("unsupported_response_type")  # noqa: TRY301 - answered as a redirect below
            if query.get("code_challenge_method") != "S256" or not query.get("code_challenge"):
                raise _Refused("invalid_request")  # noqa: TRY301 - as above
            authorization = Authorization(
                client_id=client.client_id,
                subject=_USER,
                scope=_granted_scope(client, query),
                resource=_resource(client, query),
                redirect_uri=redirect_uri,
                code_challenge=query["code_challenge"],
            )
            answer["code"] = self._grants.new_code(authorization, self._clock())
        except _Refused as refused:
            answer["error"] = refused.error
        return Response(303, headers=(("location", f"{redirect_uri}?{urlencode(answer)}"), _NO_STORE))

    def _token(self, request: Request) -> Response:
        form, client, certificate = self._authenticated(request)
        grant_type = form.get("grant_type", "")
        if grant_type not in client.grant_types:
            raise _Refused("unauthorized_client" if grant_type in _GRANT_TYPES else "unsupported_grant_type")
        match grant_type:
            case "client_credentials":
                authorization = Authorization(
                    client.client_id, client.client_id, _granted_scope(client, form), _resource(client, form)
                )
            case "authorization_code":
                authorization = self._redeemed_code(client, form)
            case _:
                authorization = self._redeemed_refresh_token(client, form)
        answer = self._access_token(client, authorization, certificate)
        if "refresh_token" in client.grant_types:
            answer["refresh_token"] = self._grants.new_refresh_token(authorization, self._clock())
        return _json(answer)

    def _redeemed_code(self, client: Client, form: _Form) -> Authorization:
        authorization = self._grants.take_code(form.get("code", ""), self._clock())
        if (
            authorization is None
            or authorization.client_id != client.client_id
            or authorization.redirect_uri != form.get("redirect_uri")
            or not secrets.compare_digest(authorization.code_challenge, code_challenge(form.get("code_verifier", "")))
        ):
            raise _Refused("invalid_grant")
        return authorization

    def _redeemed_refresh_token(self, client: Client, form: _Form) -> Authorization:
        token = form.get("refresh_token", "")
        authorization = self._grants.take_refresh_token(token, self._clock())
        if authorization is not None and authorization.client_id != client.client_id:
            self._grants.put_back(token, authorization)
            authorization = None
        if authorization is None:
            raise _Refused("invalid_grant")
        return authorization

    def _access_token(
        self, client: Client, authorization: Authorization, certificate: ClientCertificate | None
    ) -> dict[str, object]:
        """RFC 9068, with the `cnf` of RFC 8705 §3.1."""
        now = int(self._clock())
        claims: dict[str, object] = {
            "iss": self.issuer,
            "sub": authorization.subject,
            "aud": authorization.resource,
            "client_id": client.client_id,
            "scope": " ".join(sorted(authorization.scope)),
            # a negative lifetime makes a token that was issued and expired in the past
            "iat": now + min(client.access_token_lifetime, 0) - 1,
            "exp": now + client.access_token_lifetime,
            "jti": secrets.token_urlsafe(16),
        }
        if client.tls_client_auth_san_uri is not None:
            # so that a resource server can bind to the workload where certificates change faster than tokens
            claims["spiffe_id"] = client.tls_client_auth_san_uri
        if client.tls_client_certificate_bound_access_tokens:
            if certificate is None:
                raise _Refused("invalid_request")
            claims["cnf"] = {"x5t#S256": certificate.thumbprint}
        token = self.keys.current.sign(claims, "at+jwt")
        self._grants.remember_access_token(token, claims)
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": max(client.access_token_lifetime, 0),
            "scope": claims["scope"],
        }

    def _introspect(self, request: Request) -> Response:
        form, client, _ = self._authenticated(request)
        if not client.may_introspect:
            raise _Refused("unauthorized_client", 403)
        claims = self._grants.introspect(form.get("token", ""), self._clock())
        return _json({"active": False} if claims is None else {"active": True, "token_type": "Bearer", **claims})

    def _revoke(self, request: Request) -> Response:
        form, client, _ = self._authenticated(request)
        self._grants.revoke(form.get("token", ""), client.client_id)
        return Response(200, headers=(_NO_STORE,))

    def _rotate(self, request: Request) -> Response:
        _, client, _ = self._authenticated(request)
        if not client.may_administer:
            raise _Refused("unauthorized_client", 403)
        return _json({"kid": self.keys.rotate().key_id})

    def _authenticated(self, request: Request) -> tuple[_Form, Client, ClientCertificate | None]:
        try:
            certificate = ClientCertificate.from_xfcc(request.header("x-forwarded-client-cert"))
        except ValueError:
            raise _Refused("invalid_client", 401) from None
        form = _parameters(request.body.decode("ascii", "replace"))
        client = self._clients.get(form.get("client_id", ""))
        if client is None or not client.authenticates_with(certificate, self._bundles, self._clock()):
            raise _Refused("invalid_client", 401)
        return form, client, certificate


_GRANT_TYPES = frozenset({"authorization_code", "client_credentials", "refresh_token"})


def _parameters(text: str) -> _Form:
    """A form or query; RFC 6749 §3.1 and §3.2: no parameter may be there twice."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=32)
    except ValueError:
        raise _Refused("invalid_request") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise _Refused("invalid_request")
    return form


def _granted_scope(client: Client, form: _Form) -> frozenset[str]:
    scope = frozenset(form.get("scope", "").split()) or client.scope
    if not scope <= client.scope:
        raise _Refused("invalid_scope")
    return scope


def _resource(client: Client, form: _Form) -> str:
    resource = form.get("resource", client.resources[0])
    if resource not in client.resources:
        raise _Refused("invalid_target")  # RFC 8707 §2
    return resource


def _json(body: object, status: int = 200) -> Response:
    return Response(status, json.dumps(body).encode(), (("content-type", "application/json"), _NO_STORE))


def serve_authorization_server(settings_file: Path) -> None:
    """Serve until stopped, by a JSON file that `ext_authz.demo.layout` writes."""
    settings = json.loads(settings_file.read_text())
    server = AuthorizationServer(
        settings["issuer"],
        clients_from_file(Path(settings["clients_file"])),
        TrustBundles(settings["trust_bundles"]),
        time.time,
    )
    serve_until_stopped(server.answer, settings["host"], settings["port"])


if __name__ == "__main__":
    serve_authorization_server(Path(single_argument("SETTINGS.json")))
