"""The token itself: RFC 9068 claims, JOSE headers and signatures, keys that turn."""

import hashlib
import hmac
import json

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ext_authz.demo.caller import Call
from ext_authz.demo.json_web import SigningKey, base64url, base64url_decode
from ext_authz.demo.scenario import Scenario, Stage
from ext_authz.errors import Reason

__all__ = ["TOKENS"]


def _presented(token: str, stage: Stage) -> Call:
    return stage.call("/invoices", certificate="mywebsite", token=token)


def _unsigned(stage: Stage) -> Call:
    header = base64url(json.dumps({"alg": "none", "typ": "at+jwt"}).encode())
    return _presented(f"{header}.{stage.token().split('.')[1]}.", stage)


def _signed_with_the_public_key(stage: Stage) -> Call:
    """RFC 8725 §2.1: the published RSA key taken for an HMAC secret."""
    jwk = json.dumps(stage.oauth.get("/jwks").json()["keys"][0])  # type: ignore[index]  # a JWK Set
    public_key = jwt.algorithms.RSAAlgorithm.from_jwk(jwk)
    secret = public_key.public_bytes(  # type: ignore[union-attr]  # the published key is public
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    original = jwt.get_unverified_header(stage.token())
    header = base64url(json.dumps({**original, "alg": "HS256"}).encode())
    signed = f"{header}.{stage.token().split('.')[1]}"
    signature = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return _presented(f"{signed}.{base64url(signature)}", stage)


def _signed_by_another(stage: Stage) -> Call:
    claims = json.loads(base64url_decode(stage.token().split(".")[1]))
    return _presented(SigningKey.generate("unheard-of").sign(claims, "at+jwt"), stage)


def _altered(stage: Stage) -> Call:
    header, payload, signature = stage.token().split(".")
    claims = {**json.loads(base64url_decode(payload)), "sub": "admin"}
    return _presented(f"{header}.{base64url(json.dumps(claims).encode())}.{signature}", stage)


def _after_rotation(stage: Stage) -> Call:
    rotated = stage.oauth.post("/keys/rotate", "operator", client_id="operator")
    if rotated.status != 200:
        raise ValueError(f"the signing key was not rotated: {rotated.status}")
    stage.forget_tokens()
    return _presented(stage.token(), stage)


def _before_rotation(stage: Stage) -> Call:
    """Alice's token is older than the rotation before this row."""
    return stage.call("/account", certificate="app", token=stage.app_tokens()["access_token"])


TOKENS = (
    Scenario(
        "no token",
        lambda stage: stage.call("/invoices", certificate="mywebsite"),
        401,
        Reason.TOKEN_MISSING,
        lambda answer: None if answer.headers.get("www-authenticate") == "Bearer" else "no plain challenge",
    ),
    Scenario(
        "expired token",
        lambda stage: _presented(stage.token("always-late"), stage),
        401,
        Reason.TOKEN_EXPIRED,
    ),
    Scenario(
        "token for another audience",
        lambda stage: _presented(stage.token(resource="https://catalog.example.com"), stage),
        401,
        Reason.AUDIENCE_MISMATCH,
    ),
    Scenario(
        "token without the scope",
        lambda stage: stage.call(
            "/invoices", method="POST", certificate="mywebsite", token=stage.token(scope="invoices.read")
        ),
        403,
        Reason.SCOPE_INSUFFICIENT,
        lambda answer: (
            None
            if 'scope="invoices.pay"' in answer.headers.get("www-authenticate", "")
            else "no scope in the challenge"
        ),
    ),
    Scenario(
        "token of another client, bound to its certificate",
        lambda stage: stage.call("/invoices", certificate="reporting", token=stage.token("reporting", "reporting")),
        403,
        Reason.CLIENT_NOT_ALLOWED,
    ),
    Scenario("claims altered after signing", _altered, 401, Reason.SIGNATURE_INVALID),
    Scenario("unsigned token (alg none)", _unsigned, 401, Reason.TOKEN_ALGORITHM_NOT_ALLOWED),
    Scenario(
        "HS256 with the public key as secret", _signed_with_the_public_key, 401, Reason.TOKEN_ALGORITHM_NOT_ALLOWED
    ),
    Scenario("signing key rotated, no restart: new token", _after_rotation, 200, Reason.OK),
    Scenario("signing key rotated: token of the key before", _before_rotation, 200, Reason.OK),
    Scenario("signed with a key the issuer never published", _signed_by_another, 401, Reason.SIGNING_KEY_UNKNOWN),
)
