"""What a server file may say, what it must say, and what is refused unless it is named."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from support import pki
from support.config_files import POLICY, SERVER, Problems

from ext_authz.config.load import load
from ext_authz.config.settings import AdminSettings, Configuration, ListenerSettings, LogSettings
from ext_authz.errors import ConfigurationError
from ext_authz.evidence.settings import (
    ClientCertSource,
    PemHeaderSource,
    PrincipalSource,
    SourceCertificateSource,
    TokenSource,
    XfccSource,
)
from ext_authz.token.issuer import DiscoveredKeys, InlineKeys, KeyFile, KeyUrl

ISSUER = """\
    - name: corp
      issuer: https://login.example.com
      audiences: [https://api.example.com]
      keys: {discovery: true}
"""
PUBLIC_KEY = {"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
PRIVATE_KEY = PUBLIC_KEY | {"kid": "b", "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}
ENCRYPTION_KEY = PUBLIC_KEY | {"kid": "c", "use": "enc"}


def configured(folder: Path, server: str = SERVER) -> Configuration:
    (folder / "server.yaml").write_text(server)
    return load(folder / "server.yaml")


def test_the_smallest_server_has_safe_defaults(folder: Path) -> None:
    config = configured(folder)
    assert config.listener == ListenerSettings()
    assert config.admin == AdminSettings()
    assert config.log == LogSettings()
    assert config.evidence.certificate_sources == (XfccSource(1),)
    assert config.evidence.token_sources == (TokenSource(),)
    assert config.evidence.chain_verified_by_proxy
    assert config.issuers["corp"].keys == DiscoveredKeys()
    assert config.issuers["corp"].types == {"at+jwt"}
    assert [policy.name for policy in config.policies] == ["billing"]
    assert config.insecure == ()
    assert config.warnings == ()
    assert set(config.watched_files) == {
        str(folder / name) for name in ("server.yaml", "policies", "policies/billing.yaml")
    }


def test_everything_that_can_be_written_is_read(folder: Path) -> None:
    ca = pki.authority()
    leaf = ca.leaf()
    for name, content in {
        "tls.pem": leaf.chain_pem,
        "tls.key": leaf.key_pem,
        "ca.pem": ca.pem,
        "keys.json": json.dumps({"keys": [PUBLIC_KEY, ENCRYPTION_KEY]}).encode(),
    }.items():
        (folder / name).write_bytes(content)
    config = configured(
        folder,
        """\
apiVersion: ext-authz/v1alpha1
kind: Server
metadata: {name: edge}
spec:
  listener:
    address: unix:/run/x.sock
    tls: {certificate_file: tls.pem, key_file: tls.key, client_ca_file: ca.pem}
    maximum_message_bytes: 65536
    maximum_concurrent_streams: 7
    maximum_connections: 12
    lame_duck_seconds: 0
    drain_seconds: 0
    default_deadline_seconds: 0.5
  admin: none
  evidence:
    certificate_sources:
      - {type: source-certificate}
      - {type: source-principal}
      - {type: xfcc, trusted_hops: 2, by: ["spiffe://a.b/c"], via: ["spiffe://a.b/gateway"]}
      - {type: pem-header, header: X-Cert}
      - {type: client-cert}
    chain_verified_by: proxy
    token_sources: [{header: authorization}, {header: X-Token, scheme: none}]
  issuers:
    - {name: a, issuer: "https://a", audiences: [x], keys: {url: "https://a/jwks", ca_file: ca.pem}, skew_seconds: 5,
       maximum_lifetime_seconds: 60, algorithms: [ES384], types: [application/at+JWT, vnd.x+jwt], scope_array: true,
       required_claims: [jti], client_id_claim: azp, scope_claim: scp, ignored_headers: [rh]}
    - {name: b, issuer: "b", audiences: [x], keys: {metadata_url: "https://b/m"}}
    - {name: c, issuer: "c", audiences: [x], keys: {file: keys.json}}
    - {name: d, issuer: "d", audiences: [x], keys: {inline: {keys: []}}}
  key_fetch: {refresh_seconds: 60, stale_seconds: 120, timeout_seconds: 1, unknown_key_cooldown_seconds: 2, failure_backoff_seconds: 3}
  denials: {realm: r, resource_metadata: "https://x/y", body_template: "${status} $$ ${title} ${detail}", content_type: text/html}
  log: {level: debug, allowed: false}
  canonical_paths: [merge_slashes, case_sensitive]
  reload_seconds: 5
  strict: true
""",
    )
    assert config.listener.address == "unix:/run/x.sock"
    assert config.listener.tls is not None
    assert config.listener.tls.key_file == str(folder / "tls.key")
    assert config.listener.tls.client_ca_file == str(folder / "ca.pem")
    assert config.listener.default_deadline == 0.5
    assert config.admin.address is None
    assert config.evidence.certificate_sources == (
        SourceCertificateSource(),
        PrincipalSource(),
        XfccSource(2, ("spiffe://a.b/c",), ("spiffe://a.b/gateway",)),
        PemHeaderSource("x-cert"),
        ClientCertSource(),
    )
    assert config.evidence.token_sources == (TokenSource(), TokenSource("x-token", None))
    a = config.issuers["a"]
    assert a.keys == KeyUrl("https://a/jwks", str(folder / "ca.pem"))
    assert a.types == {"at+jwt", "vnd.x+jwt"}
    assert a.algorithms == {"ES384"}
    assert a.skew == 5
    assert (a.maximum_lifetime, a.client_id_claim, a.scope_claim, a.scope_array) == (60, "azp", "scp", True)
    assert a.required_claims == {"jti"}
    assert a.ignored_headers == {"rh"}
    assert config.issuers["b"].keys == DiscoveredKeys("https://b/m")
    assert config.issuers["c"].keys == KeyFile(str(folder / "keys.json"))
    assert config.issuers["d"].keys == InlineKeys('{"keys": []}')
    assert config.key_fetch.stale_seconds == 120
    assert config.denials.content_type == "text/html"
    assert config.canonical_paths == {"merge_slashes", "case_sensitive"}
    assert {str(folder / name) for name in ("tls.pem", "tls.key", "ca.pem", "keys.json")} < set(config.watched_files)


def test_bundles_are_read_for_their_own_trust_domain(folder: Path) -> None:
    (folder / "a.pem").write_bytes(pki.authority().pem)
    (folder / "empty.pem").write_bytes(b"")
    config = configured(
        folder,
        SERVER.replace("proxy", "bundles")
        + "  trust_bundles: [{trust_domain: cluster.local, files: [a.pem]}, {trust_domain: b, files: [empty.pem]}]\n",
    )
    assert [bundle.trust_domain.name for bundle in config.bundles] == ["cluster.local", "b"]
    assert config.bundles[0].files == (str(folder / "a.pem"),)
    assert not config.evidence.chain_verified_by_proxy


EVIDENCE = "  evidence:\n    certificate_sources: [{type: xfcc, trusted_hops: 1}]\n    chain_verified_by: proxy\n"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        # evidence
        ("{type: xfcc, trusted_hops: 1}", "{type: xfcc}", "server.yaml:5:27: spec.evidence.certificate_sources[0].trusted_hops: the key `trusted_hops` is missing; write `trusted_hops: 1` (count proxies"),
        ("trusted_hops: 1", "trusted_hops: 0", "trusted_hops: `0` is out of bounds; the number must be greater than or equal to 1"),
        ("trusted_hops: 1", "trusted_hops: '1'", "not a whole number; write one without quotes"),
        ("type: xfcc", "type: xffc", "spec.evidence.certificate_sources[0]: `xffc` is not allowed here; did you mean `xfcc`? write one of `source-cert"),
        ("{type: xfcc, trusted_hops: 1}", "{trusted_hops: 1}", "the key `type` is missing; write `type: xfcc`"),
        ("{type: xfcc, trusted_hops: 1}", "{type: 1}", "the key `type` is missing"),
        ("{type: xfcc, trusted_hops: 1}", "xfcc", "spec.evidence.certificate_sources[0]: not a mapping"),
        ("trusted_hops: 1}", "trusted_hops: 1, xfcc: 2}", "5:57: spec.evidence.certificate_sources[0].xfcc: there is no key `xfcc` here; keys here: type, trusted_hops, by"),
        ("trusted_hops: 1}", "trusted_hops: 1, by: [x]}", "certificate_sources[0].by[0]: `x` is not a SPIFFE ID: does not begin with `spiffe://`; write"),
        ("    chain_verified_by: proxy\n", "", "5:5: spec.evidence: there are certificate sources and `chain_verified_by` is missing; write `proxy`"),
        ("chain_verified_by: proxy", "chain_verified_by: proxi", "`proxi` is not allowed here; did you mean `proxy`?"),
        (EVIDENCE, "  evidence: {certificate_sources: [{type: source-principal}], chain_verified_by: nobody}\n", "`source-principal` is also filled from certificates that nobody verified; write `chain_verified_by: proxy`"),
        (EVIDENCE, "  evidence: {token_sources: []}\n", "spec.evidence.token_sources: no token can be found"),
        (EVIDENCE, "  evidence: {token_sources: [{header: a}, {header: A}]}\n", "spec.evidence.token_sources: the same source is written twice"),
        ("[{type: xfcc, trusted_hops: 1}]", "[{type: client-cert}, {type: client-cert}]", "spec.evidence.certificate_sources: the same source is written twice"),
        ("chain_verified_by: proxy", "chain_verified_by: bundles", "spec.evidence.chain_verified_by: there are no `trust_bundles` to verify with; write `trust_bundles`"),
        # issuers
        ("issuer: https://login.example.com", "issuer: http://login.example.com", "9:15: spec.issuers[0].issuer: `http://login.example.com` is plain http to another host; write `https`, or `insecure_allow_http"),
        ("{discovery: true}", "{url: 'http://10.0.0.1/jwks'}", "11:19: spec.issuers[0].keys.url: `http://10.0.0.1/jwks` is plain http to another host"),
        ("{discovery: true}", "{metadata_url: 'http://a.example/m'}", "spec.issuers[0].keys.metadata_url: `http://a.example/m` is plain http"),
        ("{discovery: true}", "{url: 'ftp://a/jwks'}", "`ftp://a/jwks` is not an absolute URL; write it like"),
        ("{discovery: true}", "{url: 'https://[x/'}", "is not an absolute URL"),
        ("{discovery: true}", "{url: 'https://a/{tenant}/jwks'}", "is not an absolute URL"),
        ("{discovery: true}", "{url: 'https://bücher.example/'}", "a host in its `xn--` form"),
        ("{discovery: true}", "{url: 'https://u:p@a/'}", "holds credentials or a fragment"),
        ("{discovery: true}", "{}", "spec.issuers[0].keys: write exactly one of `url`"),
        ("{discovery: true}", "{discovery: true, file: x}", "spec.issuers[0].keys: write exactly one of `url`"),
        ("{discovery: true}", "{discovery: false}", "spec.issuers[0].keys.discovery: `false` is not allowed here; write `true`"),
        ("{discovery: true}", "{inline: {}}", "spec.issuers[0].keys.inline: a JWKS is a mapping with a list `keys`"),
        ("{discovery: true}", "{inline: {keys: []}, ca_file: x}", "spec.issuers[0].keys.ca_file: nothing is fetched, so `ca_file` has no use"),
        ("{discovery: true}", "{discovery: true, ca_file: missing.pem}", "spec.issuers[0].keys.ca_file: the file `"),
        ("{discovery: true}", "{discovery: true, ca_file: server.yaml}", "the file `server.yaml` cannot be used: it holds no certificate, or a malformed one; write a PEM"),
        ("{discovery: true}", "{file: server.yaml}", "spec.issuers[0].keys.file: the file `server.yaml` cannot be used: "),
        ("{discovery: true}", "{inline: " + json.dumps({"keys": [PRIVATE_KEY, PUBLIC_KEY]}) + "}", "spec.issuers[0].keys.inline: key 1 cannot be used: private; write a JWKS with public keys"),
        ("{discovery: true}", "{inline: " + json.dumps({"keys": [ENCRYPTION_KEY]}) + "}", "key 1 cannot be used: use not signature"),
        ("issuer: https://login.example.com", "issuer: corp", "spec.issuers[0].keys.discovery: the issuer is not a URL, so nothing can be discovered; write `url`"),
        ("      audiences: [https://api.example.com]\n", "", "8:7: spec.issuers[0].audiences: no audience is written, so tokens for other services would be accepted; write"),
        ("[https://api.example.com]", "[]", "10:18: spec.issuers[0].audiences: no audience is written"),
        ("[https://api.example.com]", "['*']", "10:19: spec.issuers[0].audiences[0]: `*` is compared as it stands, like any audience"),
        ("[https://api.example.com]", "[x]\n      insecure_any_audience: true", "spec.issuers[0].insecure_any_audience: `audiences` would have no effect; remove one"),
        ("[https://api.example.com]", "[x]\n      types: [JWT]", "11:14: spec.issuers[0].types: the type `jwt` is also that of ID tokens and other JWTs (RFC 8725 §3.11); let"),
        ("[https://api.example.com]", "[x]\n      types: ['']", "spec.issuers[0].types: the type `` is also that of"),
        ("[https://api.example.com]", "[x]\n      types: [dpop+jwt]", "spec.issuers[0].types[0]: `dpop+jwt` is the type of a DPoP proof, never of an access token; remove it"),
        ("[https://api.example.com]", "[x]\n      types: ['a b']", "`a b` is not a media type; write it like `at+jwt`"),
        ("[https://api.example.com]", "[x]\n      types: []", "spec.issuers[0].types: the list is empty; write at least one item"),
        ("[https://api.example.com]", "[x]\n      algorithms: [HS256]", "spec.issuers[0].algorithms[0]: `HS256` is symmetric: who can verify a token can also make one; let"),
        ("[https://api.example.com]", "[x]\n      algorithms: [none]", "`none` is not allowed here; write one of `RS256`"),
        ("[https://api.example.com]", "[x]\n      algorithms: [RS265]", "`RS265` is not allowed here; did you mean `RS256`?"),
        ("[https://api.example.com]", "[x]\n      skew_seconds: 301", "spec.issuers[0].skew_seconds: tokens would be accepted for 301 seconds after they expire; write at most 300, or"),
        ("[https://api.example.com]", "[x]\n      skew_seconds: soon", "spec.issuers[0].skew_seconds: not a number; write one without quotes"),
        ("  policies:", ISSUER + "  policies:", "12:13: spec.issuers[1].name: the name `corp` is taken in"),
        ("  policies:", ISSUER.replace("name: corp", "name: other") + "  policies:", "13:15: spec.issuers[1].issuer: the name `https://login.example.com` is taken in"),
        # the rest
        ("  policies:", "  listener: {address: localhost}\n  policies:", "`localhost` is not `host:port` or `unix:/path`; write it like `127.0.0.1:9000`"),
        ("  policies:", "  listener: {address: 'a:70000'}\n  policies:", "is not `host:port` or `unix:/path`"),
        ("  policies:", "  listener: {address: 'unix:a'}\n  policies:", "`unix:a` is not a socket's absolute path"),
        ("  policies:", "  admin: off\n  policies:", "spec.admin: `off` is not allowed here; write `none`"),
        ("  policies:", "  admin: {address: x}\n  policies:", "spec.admin.address: `x` is not `host:port`"),
        ("  policies:", "  key_fetch: {stale_seconds: 1}\n  policies:", "spec.key_fetch.stale_seconds: keys would stop serving before they are fetched again"),
        ("  policies:", "  key_fetch: {refresh_seconds: 0}\n  policies:", "the number must be greater than 0"),
        ("  policies:", "  denials: {body_template: '${x}'}\n  policies:", "spec.denials.body_template: there is no `${x}` here; write `${status}`"),
        ("  policies:", "  denials: {body_template: '$'}\n  policies:", "a `$` begins no `${name}`; for a literal `$` write `$$`"),
        ("  policies:", "  canonical_paths: [merge_slash]\n  policies:", "`merge_slash` is not allowed here; did you mean `merge_slashes`?"),
        ("  policies:", "  trust_bundles: [{trust_domain: a, files: []}]\n  policies:", "spec.trust_bundles[0].files: the list is empty"),
        ("  policies:", "  trust_bundles: [{trust_domain: a, files: [missing]}]\n  policies:", "spec.trust_bundles[0].files[0]: the file `"),
        ("  policies:", "  trust_bundles: [{trust_domain: a, files: [server.yaml]}]\n  policies:", "the file `server.yaml` cannot be used: "),
        ("  policies:", "  trust_bundles: [{trust_domain: a, files: [e]}, {trust_domain: a, files: [e]}]\n  policies:", "spec.trust_bundles[1].trust_domain: the name `a` is taken in"),
        ("[policies/*.yaml]", "policies/*.yaml", "spec.policies: not a list; write `[policies/*.yaml]`"),
        ("[policies/*.yaml]", "[missing.yaml]", "12:14: spec.policies[0]: the file `missing.yaml` cannot be read: no such file or directory; write the name"),
        ("[policies/*.yaml]", '["a\\0*"]', "spec.policies[0]: the text is empty or holds a control character"),
        ("kind: Server", "kind: Sever", "server.yaml: there is no `kind: Server` document; write one"),
        ("spec:", "spce:", "3:1: spce: there is no key `spce` here; did you mean `spec`?"),
        ("  policies:", "  polices:", "12:3: spec.polices: there is no key `polices` here; did you mean `policies`?"),
        ("spec:", "metadata: {}\nspec:", "metadata.name: the key `name` is missing; write `name: billing`"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_server_is_told_with_its_place_and_what_to_write(
    problems_of: Problems, old: str, new: str, problem: str
) -> None:
    assert old in SERVER
    found = problems_of(SERVER.replace(old, new, 1))
    assert any(problem in line for line in found), found


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "https://login.example.com",
            "http://login.example.com\n      insecure_allow_http: true",
            "issuer `corp`: insecure_allow_http: whoever is between here and the issuer can replace its keys",
        ),
        (
            "audiences: [https://api.example.com]",
            "insecure_any_audience: true",
            "issuer `corp`: insecure_any_audience: tokens that were issued for other services are accepted",
        ),
        (
            "audiences: [https://api.example.com]",
            "audiences: [x]\n      types: [at+jwt, JWT]\n      insecure_accept_generic_jwt_type: true",
            "issuer `corp`: insecure_accept_generic_jwt_type: other JWTs of the issuer, such as ID tokens, may pass",
        ),
        (
            "audiences: [https://api.example.com]",
            "audiences: [x]\n      skew_seconds: 600\n      insecure_large_skew: true",
            "issuer `corp`: insecure_large_skew: expired tokens are accepted for longer than clocks explain",
        ),
    ],
)
def test_a_danger_that_is_named_is_accepted_and_told_at_start(folder: Path, old: str, new: str, sentence: str) -> None:
    config = configured(folder, SERVER.replace(old, new, 1))
    assert len(config.insecure) == 1
    assert config.insecure[0].startswith(sentence)


def test_any_audience_is_a_term_of_the_issuer(folder: Path) -> None:
    server = SERVER.replace("audiences: [https://api.example.com]", "insecure_any_audience: true")
    issuer = configured(folder, server).issuers["corp"]
    assert issuer.any_audience
    assert not issuer.audiences


@pytest.mark.parametrize("url", ["http://localhost:8080/k", "http://127.0.0.1/k", "http://[::1]:1/k"])
def test_plain_http_is_no_danger_on_loopback(problems_of: Problems, url: str) -> None:
    assert problems_of(SERVER.replace("{discovery: true}", f"{{url: '{url}'}}")) == []


def test_a_name_below_localhost_may_be_elsewhere(problems_of: Problems) -> None:
    (found,) = problems_of(SERVER.replace("{discovery: true}", "{url: 'http://idp.localhost/k'}"))
    assert "is plain http to another host" in found


def test_an_issuer_whose_url_has_no_host_is_plain_http(problems_of: Problems) -> None:
    found = problems_of(SERVER.replace("https://login.example.com", "'http://[x'"))
    assert any("is plain http to another host" in line for line in found)


def test_tls_files_must_belong_together(folder: Path, problems_of: Problems) -> None:
    ca = pki.authority()
    leaf, other = ca.leaf(key=pki.ec_key("one")), ca.leaf(key=pki.ec_key("two"))
    encrypted = other.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    for name, content in {
        "c.pem": leaf.pem,
        "c.key": leaf.key_pem,
        "other.key": other.key_pem,
        "secret.key": encrypted,
        "junk": b"junk",
    }.items():
        (folder / name).write_bytes(content)

    def found(certificate: str, key: str) -> list[str]:
        tls = f"  listener: {{tls: {{certificate_file: {certificate}, key_file: {key}}}}}\n"
        return [line.partition(": spec.listener.tls.")[2] for line in problems_of(SERVER + tls)]

    assert found("c.pem", "c.key") == []
    assert found("c.pem", "other.key") == ["key_file: the key is not the certificate's; write the leaf's own key"]
    (problem,) = found("junk", "c.key")
    assert problem.startswith(
        "certificate_file: the file `junk` cannot be used: it holds no certificate, or a malformed"
    )
    assert "the key is encrypted" in found("c.pem", "secret.key")[0]
    assert "it holds no private key that can be read" in found("c.pem", "junk")[0]
    assert "cannot be read: no such file or directory" in found("c.pem", "missing")[0]


def test_one_mistake_hides_no_other_in_any_file(folder: Path, problems_of: Problems) -> None:
    (folder / "policies/broken.yaml").write_text("a: [")
    found = problems_of(
        SERVER.replace("trusted_hops: 1", "hops: 1").replace("keys: {discovery: true}", "keys: {}"),
        POLICY.replace("issuers: [corp]", "issuers: [crop]").replace("method: GET", "method: GTE"),
    )
    assert [line.split(": ")[:2] for line in found] == [
        ["policies/billing.yaml:7:32", "spec.defaults.token.issuers[0]"],
        ["policies/billing.yaml:10:70", "spec.rules[0].matches[0].method"],
        ["policies/broken.yaml:2:1", "not valid YAML"],
        ["server.yaml:5:27", "spec.evidence.certificate_sources[0].trusted_hops"],
        ["server.yaml:5:40", "spec.evidence.certificate_sources[0].hops"],
        ["server.yaml:11:13", "spec.issuers[0].keys"],
    ]
    assert "there is no issuer `crop`; did you mean `corp`?" in found[0]


def test_an_unknown_issuer_is_told_with_those_there_are(problems_of: Problems) -> None:
    (problem,) = problems_of(policy=POLICY.replace("issuers: [corp]", "issuers: [zzzzz]"))
    assert problem.endswith("there is no issuer `zzzzz`; write one of those configured: `corp`")


def test_policies_may_stand_beside_the_server(folder: Path) -> None:
    (folder / "policies/billing.yaml").unlink()
    config = configured(folder, SERVER.replace("[policies/*.yaml]", "['*.yaml']") + "---\n" + POLICY)
    assert [policy.name for policy in config.policies] == ["billing"]


def test_a_file_named_twice_is_read_once(folder: Path) -> None:
    config = configured(
        folder, SERVER.replace("[policies/*.yaml]", "[policies/*.yaml, policies/billing.yaml, 'policies/**/*.yaml']")
    )
    assert len(config.policies) == 1


def test_expected_decisions_are_no_policies(folder: Path) -> None:
    (folder / "policies/billing.tests.yaml").write_text("not: [even, yaml")
    assert len(configured(folder).policies) == 1


def test_a_second_server_is_a_problem(problems_of: Problems, folder: Path) -> None:
    assert any("a second server in one file" in line for line in problems_of(SERVER + "---\n" + SERVER))
    (folder / "policies/x.yaml").write_text(SERVER)
    assert any("policies/x.yaml:2:7: kind: a server among policies" in line for line in problems_of(SERVER))


def test_a_policy_file_without_a_server_is_checked_and_refused(problems_of: Problems) -> None:
    found = problems_of(POLICY.replace("public: true", "pubic: true"))
    assert any("did you mean `public`?" in line for line in found)
    assert any("there is no `kind: Server` document" in line for line in found)


@pytest.mark.parametrize("text", ["", "[", "kind: Server", "kind: Server\nspec: {issuers: [1], policies: [1]}"])
def test_a_file_that_is_no_server_is_refused(problems_of: Problems, text: str) -> None:
    assert problems_of(text)


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: no such file or directory"):
        load(str(tmp_path / "missing.yaml"))


def with_evidence(evidence: str) -> str:
    return SERVER.replace(EVIDENCE, evidence)


WARNINGS = [
    (
        with_evidence(EVIDENCE.replace("proxy", "nobody")),
        POLICY,
        "the rule requires a peer and nobody verifies certificates, so it denies everyone",
    ),
    (with_evidence(""), POLICY, "the rule requires a peer and there are no certificate sources"),
    (
        with_evidence(""),
        POLICY.replace('peer: {spiffe: ["spiffe://cluster.local/ns/applications/sa/*"]}', "token: {}")
        .replace(', x-caller: "${peer.spiffe_id}"', "")
        .replace("\n        token: {scopes: {all: [invoices.read]}, clients: [mywebsite]}", ""),
        "the rule requires bound tokens and there are no certificate sources",
    ),
    (
        SERVER.replace(ISSUER, "").replace("  issuers:\n", ""),
        POLICY.replace("issuers: [corp]", ""),
        "the rule requires a token and there are no issuers, so it denies everyone; write `issuers`",
    ),
    (
        with_evidence(EVIDENCE.replace("proxy", "nobody")),
        POLICY.replace("binding: required", "binding: {accept: [spiffe-id], spiffe_id_claim: sub}").replace(
            'peer: {spiffe: ["spiffe://cluster.local/ns/applications/sa/*"]}', "peer: none"
        ),
        "the rule accepts `spiffe-id` and nobody verifies certificates, so that never matches",
    ),
    (
        SERVER.replace("proxy", "bundles") + "  trust_bundles: [{trust_domain: other, files: [empty.pem]}]\n",
        POLICY,
        "there is no trust bundle for `cluster.local`, so nobody of it is let in; write it in `trust_bundles`",
    ),
    (
        SERVER + "  trust_bundles: [{trust_domain: other, files: [empty.pem]}]\n",
        POLICY,
        "spec.trust_bundles: the bundles are never used; write `chain_verified_by: bundles` under `evidence`",
    ),
    (
        SERVER.replace("policies/*", "nothing/*"),
        POLICY,
        "spec.policies[0]: no file matches `nothing/*.yaml`; every request that no other policy covers is denied",
    ),
]


@pytest.mark.parametrize(("server", "policy", "warning"), WARNINGS)
def test_what_nobody_can_pass_is_a_warning_and_under_strict_a_problem(
    folder: Path, problems_of: Problems, server: str, policy: str, warning: str
) -> None:
    (folder / "empty.pem").write_bytes(b"")
    (folder / "policies/billing.yaml").write_text(policy)
    config = configured(folder, server)
    assert any(warning in line for line in config.warnings), config.warnings
    assert any(warning in line for line in problems_of(server + "  strict: true\n"))


def test_a_rule_that_can_be_met_under_bundles_is_no_warning(folder: Path) -> None:
    (folder / "a.pem").write_bytes(pki.authority().pem)
    server = SERVER.replace("proxy", "bundles") + "  trust_bundles: [{trust_domain: cluster.local, files: [a.pem]}]\n"
    assert configured(folder, server).warnings == ()


def test_a_rule_that_speaks_of_no_peer_needs_no_bundle(folder: Path) -> None:
    (folder / "a.pem").write_bytes(pki.authority().pem)
    policy = POLICY.replace('peer: {spiffe: ["spiffe://cluster.local/ns/applications/sa/*"]}', "peer: none")
    (folder / "policies/billing.yaml").write_text(policy)
    server = SERVER.replace("proxy", "bundles") + "  trust_bundles: [{trust_domain: other, files: [a.pem]}]\n"
    assert configured(folder, server).warnings == ()


def test_the_admin_address_may_be_any(folder: Path) -> None:
    assert configured(folder, SERVER + "  admin: {address: '[::]:9001'}\n").admin.address == "[::]:9001"


def test_leniencies_reach_the_findings(folder: Path) -> None:
    assert configured(folder, SERVER + "  canonical_paths: [case_sensitive]\n").warnings == ()


def test_a_thousand_problems_are_told_in_part(problems_of: Problems) -> None:
    found = problems_of(policy=POLICY + "".join(f"    - {{name: r{n}, matches: [{{}}]}}\n" for n in range(300)))
    assert len(found) == 201
    assert found[-1] == "and 99 more problems"


def test_values_in_problems_are_bounded_and_printable(problems_of: Problems) -> None:
    (problem,) = problems_of(SERVER.replace("trusted_hops: 1", '"a\\u001b\\n' + "x" * 500 + '": 1, trusted_hops: 1'))
    assert problem.isprintable()
    assert "…`" in problem


EVIDENCE = (
    "apiVersion: ext-authz/v1alpha1\nkind: Server\nspec:\n  policies: []\n  evidence:\n    chain_verified_by: proxy\n"
)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{type: xfcc, trusted_hops: 2}", "trusted_hops: an element of a proxy in front is trusted"),
        ('{type: xfcc, trusted_hops: 1, via: ["spiffe://a.b/c"]}', "via: with one hop no proxy in front counts"),
    ],
)
def test_the_proxies_in_front_are_named_exactly_when_there_are_some(folder: Path, source: str, problem: str) -> None:
    (folder / "server.yaml").write_text(f"{EVIDENCE}    certificate_sources: [{source}]\n")
    with pytest.raises(ConfigurationError) as error:
        load(folder / "server.yaml")
    assert any(problem in line for line in error.value.problems), error.value.problems


@pytest.mark.parametrize("verified_by", ["bundles", "nobody"])
def test_no_proxy_in_front_is_known_by_a_certificate_that_nobody_verified(folder: Path, verified_by: str) -> None:
    # a self-signed certificate with the gateway's name would make the client's own text the element that counts
    (folder / "ca.pem").write_bytes(pki.authority().pem)
    (folder / "server.yaml").write_text(
        EVIDENCE.replace("proxy", verified_by)
        + '    certificate_sources: [{type: xfcc, trusted_hops: 2, via: ["spiffe://a.b/gateway"]}]\n'
        + "  trust_bundles: [{trust_domain: a.b, files: [ca.pem]}]\n"
    )
    with pytest.raises(ConfigurationError) as error:
        load(folder / "server.yaml")
    assert any("`via` names proxies" in line for line in error.value.problems), error.value.problems


def test_bundles_that_are_not_verified_with_identify_no_one(folder: Path) -> None:
    (folder / "ca.pem").write_bytes(pki.authority().pem)
    (folder / "server.yaml").write_text(
        EVIDENCE.replace("proxy", "nobody")
        + "    certificate_sources: [{type: source-certificate}]\n"
        + "  trust_bundles: [{trust_domain: a.b, files: [ca.pem]}]\n"
    )
    configuration = load(folder / "server.yaml")
    assert configuration.bundles == ()
    assert any("never used" in warning for warning in configuration.warnings)


def test_the_flag_for_plain_http_reaches_the_issuer(folder: Path) -> None:
    issuer = (
        "{name: a, issuer: 'http://a.b', audiences: [x], keys: {url: 'http://a.b/keys'}, insecure_allow_http: true}"
    )
    (folder / "server.yaml").write_text(
        f"apiVersion: ext-authz/v1alpha1\nkind: Server\nspec:\n  policies: []\n  issuers: [{issuer}]\n"
    )
    assert load(folder / "server.yaml").issuers["a"].plain_http


@pytest.mark.parametrize(("written", "workers"), [("4", 4), ("auto", None), ("1", 1)])
def test_workers_are_a_number_or_one_for_each_core(folder: Path, written: str, workers: int | None) -> None:
    server = SERVER.replace("spec:\n", f"spec:\n  listener: {{workers: {written}}}\n", 1)
    assert configured(folder, server).listener.workers == workers


@pytest.mark.parametrize("written", ["2", "auto"])
def test_workers_with_the_transport_that_cannot_share_connections_are_refused(folder: Path, written: str) -> None:
    server = SERVER.replace("spec:\n", f"spec:\n  listener: {{transport: grpcio, workers: {written}}}\n", 1)
    with pytest.raises(ConfigurationError, match=r"spec\.listener\.workers: .*write `transport: h2`, or `workers: 1`"):
        configured(folder, server)


@pytest.mark.parametrize("written", ["0", "257", "many", "1.5", "true"])
def test_workers_that_are_no_number_of_processes_are_refused(folder: Path, written: str) -> None:
    server = SERVER.replace("spec:\n", f"spec:\n  listener: {{workers: {written}}}\n", 1)
    with pytest.raises(ConfigurationError, match=r"spec\.listener\.workers"):
        configured(folder, server)
