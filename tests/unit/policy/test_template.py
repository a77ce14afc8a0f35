import re
from base64 import b64decode
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import unquote

import pytest
from support.policies import CERTIFICATE, NOBODY, WEB, context, peer, token

from ext_authz.errors import Reason, Refusal
from ext_authz.policy.attributes import KNOWN_ATTRIBUTES
from ext_authz.policy.template import MAX_VALUE_LENGTH, Template, printable_json
from ext_authz.principal import JsonValue, Principals, TrustedBy


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("a  b", "a  b"),
        ("$$", "$"),
        ("cost $$5 {x}", "cost $5 {x}"),
        ("$${token.sub}", "${token.sub}"),
        ("100%s %d", "100%s %d"),
        ("${token.sub}", "alice"),
        ("${token.issuer}", "https://issuer.example.com"),
        ("${token.client_id}", "mywebsite"),
        ("${token.jti}", "token-1"),
        ("${token.scope}", "a b"),
        ("${token.audience}", "billing"),
        ("${token.exp}", "2000000000"),
        ("${token.claims.org.unit}", "sales"),
        ("${token.claims.admin}", "true"),
        ("${token.claims.level}", "3"),
        ("${token.claims.ratio}", "0.5"),
        ("${token.claims.groups}", '["a","b"]'),
        ("${token.claims.org}", '{"unit":"sales"}'),
        ("${peer.spiffe_id}", WEB),
        ("${peer.trust_domain}", "cluster.local"),
        ("${peer.namespace}", "applications"),
        ("${peer.service_account}", "web"),
        ("${peer.thumbprint}", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"),
        ("${peer.subject}", "CN=web"),
        ("${request.method}", "GET"),
        ("${request.path}", "/a/b"),
        ("${request.host}", "billing.example.com"),
        ("${request.id}", "request-1"),
        ("${request.source_ip}", "10.0.0.1"),
        ("${path.id}", "42"),
        ("user ${token.sub}@${token.client_id}, 100%", "user alice@mywebsite, 100%"),
    ],
)
def test_a_template_renders(text: str, value: str) -> None:
    claims: dict[str, JsonValue] = {
        "org": MappingProxyType({"unit": "sales"}),
        "admin": True,
        "level": 3,
        "ratio": 0.5,
        "groups": ("a", "b"),
    }
    principals = Principals(peer(), token(scopes=("b", "a"), claims=claims))
    assert Template(text).render(context(principals, variables={"id": "42"})) == value


@pytest.mark.parametrize(
    "text",
    [
        "${token.sub}",
        "${token.claims.a.b}",
        "${token.claims.empty}",
        "${token.claims.null}",
        "${token.scope}",
        "${peer.spiffe_id}",
        "${peer.namespace}",
        "${peer.thumbprint}",
        "${peer.certificate}",
        "${peer.subject}",
        "${path.id}",
        "user ${token.sub}",
        "${request.method} ${peer.spiffe_id}",
    ],
)
def test_a_template_with_an_absent_part_is_absent(text: str) -> None:
    assert Template(text).render(context(NOBODY)) is None
    bare = Principals(
        peer(None, None, None), token(scopes=(), claims={"a": "x", "empty": "", "null": None}, subject="")
    )
    assert Template(text).render(context(bare)) is None


def test_several_audiences_are_a_json_array() -> None:
    principals = Principals(None, token(audiences=("a", "b"), expires_at=1.5))
    assert Template("${token.audience}").render(context(principals)) == '["a","b"]'
    assert Template("${token.exp}").render(context(principals)) == "1.5"


def test_the_certificate_is_url_encoded_pem_as_envoy_writes_it() -> None:
    text = Template("${peer.certificate}").render(context())
    assert text is not None
    assert re.fullmatch(r"[A-Za-z0-9%.-]+", text)
    lines = unquote(text).splitlines()
    assert (lines[0], lines[-1]) == ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----")
    assert max(map(len, lines)) == 64
    assert b64decode("".join(lines[1:-1])) == CERTIFICATE.der


def test_the_subject_of_a_certificate_that_nobody_verified_is_absent() -> None:
    stranger = peer(spiffe_id=None)
    assert stranger.trusted_by is TrustedBy.NOBODY
    assert Template("${peer.subject}").render(context(Principals(stranger, None))) is None
    assert Template("${peer.thumbprint}").render(context(Principals(stranger, None))) is not None


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "write visible text"),
        (" a", "write visible text"),
        ("a ", "write visible text"),
        ("a\nb", "write visible text"),
        ("a\x00b", "write visible text"),
        ("a" * (MAX_VALUE_LENGTH + 1), "write visible text"),
        ("$", "for a literal `$` write `$$`"),
        ("$token", "for a literal `$` write `$$`"),
        ("${token.sub", "for a literal `$` write `$$`"),
        ("${token.${sub}}", "for a literal `$` write `$$`"),
        ("${}", "there is no attribute ``"),
        ("${token}", "there is no attribute `token`; write one of token.sub, "),
        ("${token.claims}", "there is no attribute"),
        ("${token.claims.}", "there is no attribute"),
        ("${token.claims.a..b}", "there is no attribute"),
        ("${path.}", "there is no attribute"),
        ("${path.a b}", "there is no attribute"),
        ("${peer.spiffe-id}", "there is no attribute"),
        ("${ token.sub }", "there is no attribute"),
        ("${__class__}", "there is no attribute"),
    ],
)
def test_a_template_that_cannot_work_says_what_to_write(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=re.escape(advice)):
        Template(text)


@pytest.mark.parametrize(
    "subject", ["a\r\nx-admin: 1", "a\x00", "\x7f", "a ", "\u202eabc", "a\u00a0b", "\ud800", "a" * 8193]
)
@pytest.mark.parametrize("text", ["${token.sub}", "user ${token.sub}"])
def test_a_value_that_no_header_can_carry_is_refused(text: str, subject: str) -> None:
    with pytest.raises(Refusal) as refusal:
        Template(text).render(context(Principals(None, token(subject=subject))))
    assert refusal.value.reason is Reason.INJECTION_NOT_POSSIBLE


def test_a_space_is_refused_at_the_ends_and_carried_inside() -> None:
    principals = Principals(None, token(subject=" a"))
    with pytest.raises(Refusal):
        Template("${token.sub}").render(context(principals))
    assert Template("user ${token.sub}").render(context(principals)) == "user  a"


def test_letters_of_every_script_are_carried() -> None:
    assert Template("${token.sub}").render(context(Principals(None, token(subject="Åsa 日本")))) == "Åsa 日本"


def test_a_template_knows_what_it_is() -> None:
    assert Template("a$$b").literal == "a$b"
    assert Template("a$$b").attribute is None
    assert Template("${token.sub}").literal is None
    assert Template("${token.sub}").attribute is not None
    assert Template("${token.sub}x").attribute is None
    assert Template("${token.sub} ${peer.spiffe_id}").references == ("token.sub", "peer.spiffe_id")
    assert "path.<variable>" in KNOWN_ATTRIBUTES


@pytest.mark.parametrize("value", ["a\n", ("a", "b\x00"), {"a": "\x1b"}, {"\n": 1}, {"a": ({"b": "\r"},)}])
def test_json_with_control_characters_is_refused(value: JsonValue) -> None:
    with pytest.raises(Refusal) as refusal:
        printable_json(value)
    assert refusal.value.reason is Reason.INJECTION_NOT_POSSIBLE


@pytest.mark.parametrize("value", [None, True, 1, 0.5, "a", ("a", 1), {"a": ("b",)}])
def test_other_json_passes_as_it_is(value: JsonValue) -> None:
    assert printable_json(value) is value


def test_json_that_is_no_json_is_a_programming_error() -> None:
    claims: Mapping[str, JsonValue] = {"a": (object(),)}  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="object"):
        Template("${token.claims.a}").render(context(Principals(None, token(claims=claims))))
