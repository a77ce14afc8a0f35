"""The demo's authorization server, asked directly: who gets a token, and what it is bound to."""

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import jwt
import pytest

from ext_authz.demo.authorization_server import AuthorizationServer
from ext_authz.demo.json_web import base64url
from ext_authz.demo.oauth_client import AuthenticationMethod, Client, TrustBundles, clients_from_file
from ext_authz.demo.oauth_grants import MAXIMUM_ENTRIES, Authorization, Grants, code_challenge
from ext_authz.demo.pki import Authority, Credential, self_signed
from ext_authz.demo.serving import Request, Response

NOW = 1_795_000_000.0
WEBSITE = "spiffe://cluster.local/ns/applications/sa/mywebsite"
BILLING, CATALOG = "https://billing.example.com", "https://catalog.example.com"
REDIRECT = "http://127.0.0.1:7777/callback"
VERIFIER = "v" * 43


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    server: AuthorizationServer
    clock: Clock
    credentials: dict[str, Credential]

    def post(self, path: str, credential: str | None, **form: str) -> Response:
        headers: tuple[tuple[str, str], ...] = ()
        if credential is not None:
            headers = (("x-forwarded-client-cert", xfcc(self.credentials[credential])),)
        return self.server.answer(Request("POST", path, headers, urlencode(form).encode()))

    def token(self, client_id: str = "mywebsite", credential: str = "mywebsite", **form: str) -> dict[str, str]:
        answer = self.post("/token", credential, client_id=client_id, grant_type="client_credentials", **form)
        assert answer.status == 200, answer.body
        return dict(json.loads(answer.body))

    def code(self, **changes: str) -> dict[str, list[str]]:
        query = {
            "response_type": "code",
            "client_id": "app",
            "redirect_uri": REDIRECT,
            "state": "s",
            "code_challenge": code_challenge(VERIFIER),
            "code_challenge_method": "S256",
            **changes,
        }
        answer = self.server.answer(Request("GET", f"/authorize?{urlencode(query)}", (), b""))
        assert answer.status == 303, answer.body
        return parse_qs(urlsplit(dict(answer.headers)["location"]).query)

    def redeem(self, code: str, credential: str | None = "app", **changes: str) -> Response:
        form = {"client_id": "app", "code": code, "redirect_uri": REDIRECT, "code_verifier": VERIFIER, **changes}
        return self.post("/token", credential, grant_type="authorization_code", **form)

    def refresh(self, token: str, credential: str | None = "app", client_id: str = "app") -> Response:
        return self.post("/token", credential, grant_type="refresh_token", client_id=client_id, refresh_token=token)


def xfcc(credential: Credential) -> str:
    """As Envoy writes it under SANITIZE_SET with `cert: true`."""
    pem = quote(credential.certificate_pem.decode(), safe="")
    return f'By=spiffe://cluster.local/ns/platform/sa/auth;Hash={credential.thumbprint.hex()};Cert="{pem}"'


def error_of(response: Response) -> tuple[int, str]:
    return response.status, json.loads(response.body)["error"]


def claims_of(token: str) -> dict[str, object]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


@pytest.fixture
def world(tmp_path: Path) -> World:
    authority, partner = Authority.create("cluster.local", NOW), Authority.create("partner.example", NOW)
    for root in (authority, partner):
        (tmp_path / root.trust_domain).write_bytes(root.bundle_pem)
    website = "/ns/applications/sa/mywebsite"
    credentials = {
        "mywebsite": authority.issue(website, NOW),
        "reporting": authority.issue("/ns/applications/sa/reporting", NOW),
        "operator": authority.issue("/ns/platform/sa/operator", NOW),
        "impostor": self_signed("impostor", NOW, WEBSITE),
        "wrong-authority": Authority("cluster.local", partner.credential).issue(website, NOW),
        "app": self_signed("app", NOW),
        "app-renewed": self_signed("app", NOW),
        "batch": self_signed("batch", NOW),
    }
    spiffe = AuthenticationMethod.TLS_CLIENT_AUTH
    credentials_only = frozenset({"client_credentials"})
    scope = frozenset({"read", "pay"})
    clients = [
        Client("mywebsite", spiffe, credentials_only, scope, (BILLING, CATALOG), tls_client_auth_san_uri=WEBSITE),
        Client(
            "batch",
            AuthenticationMethod.SELF_SIGNED_TLS_CLIENT_AUTH,
            credentials_only,
            scope,
            (BILLING,),
            certificate_thumbprints=frozenset({base64url(credentials["batch"].thumbprint)}),
        ),
        *(
            Client(
                name,
                AuthenticationMethod.NONE,
                frozenset({"authorization_code", "refresh_token"}),
                frozenset({"account"}),
                (BILLING,),
                redirect_uris=frozenset({REDIRECT}),
            )
            for name in ("app", "another-app")
        ),
        Client(
            "operator",
            spiffe,
            frozenset(),
            frozenset(),
            (BILLING,),
            tls_client_auth_san_uri="spiffe://cluster.local/ns/platform/sa/operator",
            may_introspect=True,
            may_administer=True,
        ),
    ]
    bundles = TrustBundles({name: str(tmp_path / name) for name in ("cluster.local", "partner.example")})
    clock = Clock()
    server = AuthorizationServer(
        "https://auth.example.com", {client.client_id: client for client in clients}, bundles, clock
    )
    return World(server, clock, credentials)


def test_a_token_is_bound_to_the_certificate_on_the_connection(world: World) -> None:
    token = world.token()["access_token"]
    assert claims_of(token)["cnf"] == {"x5t#S256": base64url(world.credentials["mywebsite"].thumbprint)}
    assert claims_of(token)["spiffe_id"] == WEBSITE
    assert jwt.get_unverified_header(token) == {"alg": "RS256", "typ": "at+jwt", "kid": "demo-1"}


def test_a_token_verifies_with_the_published_key(world: World) -> None:
    answer = world.server.answer(Request("GET", "/jwks", (), b""))
    key = jwt.PyJWKSet.from_json(answer.body.decode()).keys[0]
    options = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(
        world.token()["access_token"],
        key,
        algorithms=["RS256"],
        audience=BILLING,
        options=options,  # type: ignore[arg-type]  # a plain dict is what the function takes
    )
    assert claims["iss"] == "https://auth.example.com"


@pytest.mark.parametrize(
    "credential", ["reporting", "impostor", "wrong-authority", "app", None], ids=lambda name: name or "none"
)
def test_a_certificate_that_is_not_the_workloads_gets_no_token(world: World, credential: str | None) -> None:
    answer = world.post("/token", credential, client_id="mywebsite", grant_type="client_credentials")
    assert error_of(answer) == (401, "invalid_client")


def test_a_workload_certificate_is_not_accepted_after_it_expired(world: World) -> None:
    world.clock.now += 100_000
    answer = world.post("/token", "mywebsite", client_id="mywebsite", grant_type="client_credentials")
    assert error_of(answer) == (401, "invalid_client")


def test_a_registered_self_signed_certificate_gets_a_token_and_no_other_does(world: World) -> None:
    assert world.token("batch", "batch")["token_type"] == "Bearer"
    answer = world.post("/token", "app", client_id="batch", grant_type="client_credentials")
    assert error_of(answer) == (401, "invalid_client")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Hash=00",
        'Hash={hash};Cert="{cert}",Hash={hash};Cert="{cert}"',
        'Subject="x";Hash={hash};Cert="{cert}"',
        'Hash={hash};Cert="{cert}"\n',
        'Hash={hash};Cert="nonsense"',
    ],
)
def test_a_certificate_header_that_envoy_would_not_write_is_refused(world: World, header: str) -> None:
    credential = world.credentials["mywebsite"]
    text = header.format(hash=credential.thumbprint.hex(), cert=quote(credential.certificate_pem.decode(), safe=""))
    form = urlencode({"client_id": "mywebsite", "grant_type": "client_credentials"}).encode()
    answer = world.server.answer(Request("POST", "/token", (("X-Forwarded-Client-Cert", text),), form))
    assert error_of(answer) == (401, "invalid_client")


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "authorization_code"}, "unauthorized_client"),
        ({"grant_type": "client_credentials", "scope": "read everything"}, "invalid_scope"),
        ({"grant_type": "client_credentials", "resource": "https://elsewhere.example.com"}, "invalid_target"),
    ],
)
def test_a_request_beyond_what_the_client_may_is_refused(world: World, form: dict[str, str], error: str) -> None:
    assert error_of(world.post("/token", "mywebsite", client_id="mywebsite", **form)) == (400, error)


@pytest.mark.parametrize("body", [b"client_id=mywebsite&client_id=operator", b"&".join([b"a=b"] * 40)])
def test_a_parameter_given_twice_or_too_many_are_refused(world: World, body: bytes) -> None:
    assert error_of(world.server.answer(Request("POST", "/token", (), body))) == (400, "invalid_request")


def test_scope_and_resource_can_be_narrowed(world: World) -> None:
    claims = claims_of(world.token(scope="read", resource=CATALOG)["access_token"])
    assert (claims["scope"], claims["aud"]) == ("read", CATALOG)


def test_an_app_gets_alices_token_bound_to_its_self_signed_certificate(world: World) -> None:
    answer = world.code()
    assert (answer["state"], answer["iss"]) == (["s"], ["https://auth.example.com"])
    tokens = json.loads(world.redeem(answer["code"][0]).body)
    claims = claims_of(tokens["access_token"])
    assert claims["sub"] == "alice"
    assert claims["cnf"] == {"x5t#S256": base64url(world.credentials["app"].thumbprint)}


def test_an_app_without_a_certificate_gets_no_bound_token(world: World) -> None:
    assert error_of(world.redeem(world.code()["code"][0], None)) == (400, "invalid_request")


@pytest.mark.parametrize(
    "changes",
    [{"code_verifier": "w" * 43}, {"redirect_uri": "http://127.0.0.1:7777/other"}, {"client_id": "another-app"}],
)
def test_a_code_is_good_only_for_who_asked_for_it(world: World, changes: dict[str, str]) -> None:
    assert error_of(world.redeem(world.code()["code"][0], **changes)) == (400, "invalid_grant")


def test_a_code_is_good_once_and_for_a_minute(world: World) -> None:
    used, late = world.code()["code"][0], world.code()["code"][0]
    assert world.redeem(used).status == 200
    assert error_of(world.redeem(used)) == (400, "invalid_grant")
    world.clock.now += 60
    assert error_of(world.redeem(late)) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"scope": "everything"}, "invalid_scope"),
    ],
)
def test_an_authorization_request_that_is_wrong_is_told_to_the_client(
    world: World, changes: dict[str, str], error: str
) -> None:
    answer = world.code(**changes)
    assert answer["error"] == [error]
    assert "code" not in answer


@pytest.mark.parametrize("changes", [{"redirect_uri": "https://evil.example.com"}, {"client_id": "nobody"}])
def test_nobody_is_redirected_to_an_address_that_is_not_the_clients(world: World, changes: dict[str, str]) -> None:
    query = urlencode({"client_id": "app", "redirect_uri": REDIRECT, **changes})
    assert error_of(world.server.answer(Request("GET", f"/authorize?{query}", (), b""))) == (400, "invalid_request")


def test_a_refresh_binds_the_new_token_to_the_new_certificate(world: World) -> None:
    first = json.loads(world.redeem(world.code()["code"][0]).body)
    second = json.loads(world.refresh(first["refresh_token"], "app-renewed").body)
    claims = claims_of(second["access_token"])
    assert claims["cnf"] == {"x5t#S256": base64url(world.credentials["app-renewed"].thumbprint)}
    assert claims["sub"] == "alice"


def test_a_refresh_token_shown_twice_ends_all_that_descend_from_it(world: World) -> None:
    first = json.loads(world.redeem(world.code()["code"][0]).body)["refresh_token"]
    second = json.loads(world.refresh(first).body)["refresh_token"]
    assert error_of(world.refresh(first)) == (400, "invalid_grant")
    assert error_of(world.refresh(second)) == (400, "invalid_grant")


def test_a_refresh_token_in_other_hands_is_refused_and_stays_its_owners(world: World) -> None:
    token = json.loads(world.redeem(world.code()["code"][0]).body)["refresh_token"]
    assert error_of(world.refresh(token, client_id="another-app")) == (400, "invalid_grant")
    assert world.refresh(token).status == 200


def test_introspection_shows_the_binding_and_answers_only_who_may_ask(world: World) -> None:
    token = world.token("batch", "batch")["access_token"]
    seen = json.loads(world.post("/introspect", "operator", client_id="operator", token=token).body)
    assert (seen["active"], seen["cnf"]) == (True, claims_of(token)["cnf"])
    answer = world.post("/introspect", "mywebsite", client_id="mywebsite", token=token)
    assert error_of(answer) == (403, "unauthorized_client")


def test_a_token_is_inactive_once_it_expired_and_when_it_is_unknown(world: World) -> None:
    token = world.token("batch", "batch")["access_token"]
    world.clock.now += 300
    for shown in (token, "unknown"):
        seen = json.loads(world.post("/introspect", "operator", client_id="operator", token=shown).body)
        assert seen == {"active": False}


def test_revocation_ends_ones_own_tokens_and_no_others(world: World) -> None:
    mine, other = world.token("batch", "batch")["access_token"], world.token()["access_token"]
    for token in (mine, other, "unknown"):
        assert world.post("/revoke", "batch", client_id="batch", token=token).status == 200
    active = [
        json.loads(world.post("/introspect", "operator", client_id="operator", token=token).body)["active"]
        for token in (mine, other)
    ]
    assert active == [False, True]


def test_a_revoked_refresh_token_gets_nothing(world: World) -> None:
    token = json.loads(world.redeem(world.code()["code"][0]).body)["refresh_token"]
    world.post("/revoke", "app", client_id="app", token=token)
    assert error_of(world.refresh(token)) == (400, "invalid_grant")


def test_rotation_signs_with_a_new_key_and_publishes_the_last_ones(world: World) -> None:
    before = world.token()["access_token"]
    for _ in range(3):
        assert world.post("/keys/rotate", "operator", client_id="operator").status == 200
    assert jwt.get_unverified_header(before)["kid"] == "demo-1"
    assert jwt.get_unverified_header(world.token()["access_token"])["kid"] == "demo-4"
    published = [key["kid"] for key in json.loads(world.server.answer(Request("GET", "/jwks", (), b"")).body)["keys"]]
    assert published == ["demo-4", "demo-3", "demo-2"]


def test_only_the_operator_rotates_keys(world: World) -> None:
    assert error_of(world.post("/keys/rotate", "mywebsite", client_id="mywebsite")) == (403, "unauthorized_client")


def test_the_metadata_names_itself_and_its_endpoints(world: World) -> None:
    answer = world.server.answer(Request("GET", "/.well-known/oauth-authorization-server", (), b""))
    metadata = json.loads(answer.body)
    assert metadata["issuer"] == "https://auth.example.com"
    assert metadata["jwks_uri"] == "https://auth.example.com/jwks"
    assert metadata["tls_client_certificate_bound_access_tokens"] is True


@pytest.mark.parametrize(("method", "path"), [("GET", "/token"), ("POST", "/jwks"), ("GET", "/")])
def test_an_endpoint_that_is_not_there_is_not_found(world: World, method: str, path: str) -> None:
    assert world.server.answer(Request(method, path, (), b"")).status == 404


def test_memory_is_bounded() -> None:
    grants = Grants()
    authorization = Authorization("app", "alice", frozenset(), BILLING)
    codes = [grants.new_code(authorization, NOW) for _ in range(MAXIMUM_ENTRIES + 1)]
    assert grants.take_code(codes[0], NOW) is None
    assert grants.take_code(codes[1], NOW) is not None


def test_the_registered_clients_of_the_demo_can_be_read() -> None:
    file = Path(__file__).parents[3] / "ext_authz" / "demo" / "data" / "clients.json"
    clients = clients_from_file(file)
    assert clients["app"].token_endpoint_auth_method is AuthenticationMethod.NONE
    assert clients["legacy-unbound"].tls_client_certificate_bound_access_tokens is False
