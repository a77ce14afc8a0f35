"""SPIFFE IDs exist only if valid."""

import string

import pytest

from ext_authz.errors import Reason, Refusal
from ext_authz.spiffe import MAX_SPIFFE_ID_BYTES, SpiffeId, TrustDomain

TRUST_DOMAIN_CHARACTERS = set(string.ascii_lowercase + string.digits + ".-_")
SEGMENT_CHARACTERS = set(string.ascii_letters + string.digits + ".-_")


@pytest.mark.parametrize(
    ("text", "trust_domain", "path"),
    [
        ("spiffe://td", "td", ""),
        ("spiffe://td/a", "td", "/a"),
        ("spiffe://cluster.local/ns/a/sa/b", "cluster.local", "/ns/a/sa/b"),
        ("spiffe://1.2.3.4/a", "1.2.3.4", "/a"),
        ("spiffe://_-.td/A.b-c_D/...", "_-.td", "/A.b-c_D/..."),
    ],
)
def test_a_valid_id_is_read_and_written_back(text: str, trust_domain: str, path: str) -> None:
    spiffe_id = SpiffeId.parse(text)
    assert (spiffe_id.trust_domain, spiffe_id.path) == (TrustDomain(trust_domain), path)
    assert str(spiffe_id) == text
    assert str(spiffe_id.trust_domain) == trust_domain


@pytest.mark.parametrize(
    "text",
    [
        "",
        "td/a",
        "spiffe:",
        "spiffe:/td/a",
        "spiffe://",
        "spiffe:///a",
        "SPIFFE://td/a",
        "https://td/a",
        " spiffe://td/a",
        "spiffe://td/a\n",
        "spiffe://Td/a",
        "spiffe://td:8080/a",
        "spiffe://user@td/a",
        "spiffe://[::1]/a",
        "spiffe://td%20/a",
        "spiffe://td/",
        "spiffe://td/a/",
        "spiffe://td//a",
        "spiffe://td/a//b",
        "spiffe://td/.",
        "spiffe://td/a/../b",
        "spiffe://td/a/.",
        "spiffe://td/%61",
        "spiffe://td/a?b",
        "spiffe://td/a#b",
        "spiffe://td?b",
        "spiffe://td#b",
        "spiffe://td/ä",
        "spiffe://td/a;DNS=x",
        "spiffe://td/a,b",
    ],
)
def test_an_invalid_id_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        SpiffeId.parse(text)
    assert refused.value.reason is Reason.SPIFFE_ID_MALFORMED


@pytest.mark.parametrize("code", range(256))
def test_every_character_is_either_in_the_alphabet_or_refused(code: int) -> None:
    character = chr(code)
    if character in TRUST_DOMAIN_CHARACTERS:
        assert SpiffeId.parse(f"spiffe://t{character}d/a").trust_domain.name == f"t{character}d"
    elif character != "/":
        with pytest.raises(Refusal):
            SpiffeId.parse(f"spiffe://t{character}d/a")
    if character in SEGMENT_CHARACTERS or character == "/":
        assert SpiffeId.parse(f"spiffe://td/a{character}b").path == f"/a{character}b"
    else:
        with pytest.raises(Refusal):
            SpiffeId.parse(f"spiffe://td/a{character}b")


def test_an_id_is_at_most_2048_bytes_long() -> None:
    longest = "spiffe://td/" + "a" * (MAX_SPIFFE_ID_BYTES - 12)
    assert str(SpiffeId.parse(longest)) == longest
    with pytest.raises(Refusal):
        SpiffeId.parse(longest + "a")
    with pytest.raises(Refusal):
        SpiffeId(TrustDomain("td"), "/" + "a" * MAX_SPIFFE_ID_BYTES)


def test_a_trust_domain_is_at_most_255_bytes_long() -> None:
    assert TrustDomain("a" * 255).name == "a" * 255
    for name in ("a" * 256, ""):
        with pytest.raises(Refusal):
            TrustDomain(name)


def test_a_path_without_its_slash_is_refused() -> None:
    with pytest.raises(Refusal, match="does not begin"):
        SpiffeId(TrustDomain("td"), "a")


@pytest.mark.parametrize(
    ("path", "namespace", "service_account"),
    [
        ("/ns/a/sa/b", "a", "b"),
        ("/ns/a/sa/b/c", None, None),
        ("/x/ns/a/sa/b", None, None),
        ("/ns/a", None, None),
        ("", None, None),
    ],
)
def test_a_kubernetes_workload_has_a_namespace_and_a_service_account(
    path: str, namespace: str | None, service_account: str | None
) -> None:
    spiffe_id = SpiffeId(TrustDomain("td"), path)
    assert (spiffe_id.namespace, spiffe_id.service_account) == (namespace, service_account)


def test_ids_are_equal_exactly_when_their_text_is() -> None:
    assert SpiffeId.parse("spiffe://td/a") == SpiffeId.parse("spiffe://td/a")
    assert SpiffeId.parse("spiffe://td/a") != SpiffeId.parse("spiffe://td/A")
    assert sorted([TrustDomain("b"), TrustDomain("a")]) == [TrustDomain("a"), TrustDomain("b")]
