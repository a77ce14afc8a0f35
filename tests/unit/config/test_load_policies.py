"""What a policy file may say, and how each mistake is told: place, field, what is wrong, what to write."""

from pathlib import Path

import pytest

from ext_authz.config.load import load_policies
from ext_authz.errors import ConfigurationError
from ext_authz.policy.model import NO_PRINCIPAL, PathMatch, PathType, RouteMatch, RoutePolicy, Target
from ext_authz.policy.requirements import (
    ClaimRequirement,
    PeerRequirement,
    Requirement,
    ScopeRequirement,
    TokenRequirement,
)
from ext_authz.requirement import BindingMethod, BindingMode, BindingRequirement

HEAD = "apiVersion: ext-authz/v1alpha1\nkind: RoutePolicy\nmetadata: {name: p}\nspec:\n"
SET = "apiVersion: ext-authz/v1alpha1\nkind: RequirementSet\nmetadata: {name: staff}\nspec:\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "p.yaml"


def policies(file: Path, text: str) -> tuple[RoutePolicy, ...]:
    file.write_text(text)
    return load_policies([file]).policies


def problems(file: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        policies(file, text)
    return [problem.replace(f"{file}:", "") for problem in caught.value.problems]


def rule(file: Path, text: str) -> tuple[Requirement, ...]:
    """The requirements of the one rule `r` under `defaults` and with `require` as in `text`."""
    (policy,) = policies(file, HEAD + text)
    return policy.rules[0].requirements


def test_a_policy_loads_as_it_is_written(file: Path) -> None:
    (policy,) = policies(
        file,
        HEAD
        + """\
  targets:
    - {destination_principal: "spiffe://a.b/ns/*/sa/x", context_extensions: {k: v}, sni: a.example, routed_by_host: true}
  hostnames: [a.example, "*.b.example"]
  rules:
    - name: r
      matches:
        - path: {type: Template, value: "/o/{id}"}
          methods: [GET, HEAD, GET]
          headers: [{name: X-V, value: "2"}, {name: x-w, value: "a|b", type: RegularExpression}]
          query: [{name: f, value: j}, {name: g, value: "[0-9]", type: RegularExpression}]
        - {}
      require:
        peer: {trust_domains: [a.b], namespaces: [n], service_accounts: [s]}
        token:
          claims: [{claim: a.b, equals: true}, {claim: [a, b], one_of: [1, "x", 1.5]}]
          scopes: {any: [r, w]}
          audiences: [aud]
        binding: {mode: when-present, accept: [spiffe-id], spiffe_id_claim: sub}
      inject:
        request_headers: {X-Id: "${token.sub}"}
        response_headers: {x-r: "1"}
        dynamic_metadata: {a: {b: ["${token.sub}", 1, null, true]}}
        set_query_parameters: {t: "${token.sub}"}
        remove_query_parameters: [d]
        remove_request_headers: [Authorization]
        client_certificate: X-Cert
""",
    )
    assert policy.hostnames == ("a.example", "*.b.example")
    assert policy.targets[0].sni == "a.example"
    assert policy.targets[0].routed_by_host
    assert dict(policy.targets[0].context_extensions) == {"k": "v"}
    (r,) = policy.rules
    assert [match.method for match in r.matches] == ["GET", "HEAD", None]
    assert r.matches[0].path == PathMatch(PathType.TEMPLATE, "/o/{id}")
    assert [header.name for header in r.matches[0].headers] == ["x-v", "x-w"]
    assert r.matches[2] == RouteMatch()
    assert r.requirements == (
        Requirement(
            peer=PeerRequirement(trust_domains=("a.b",), namespaces=("n",), service_accounts=("s",)),
            token=TokenRequirement(
                audiences=("aud",),
                scopes=ScopeRequirement(any=("r", "w")),
                claims=(ClaimRequirement(("a.b",), (True,)), ClaimRequirement(("a", "b"), (1, "x", 1.5))),
            ),
            binding=BindingRequirement(BindingMode.WHEN_PRESENT, frozenset({BindingMethod.SPIFFE_ID}), "sub"),
        ),
    )
    injection = r.injection
    assert dict(injection.request_headers) == {"x-id": "${token.sub}"}
    assert injection.client_certificate == "x-cert"
    assert injection.remove_request_headers == ("authorization",)
    assert injection.dynamic_metadata["a"] == {"b": ("${token.sub}", 1, None, True)}


def test_a_rule_replaces_defaults_field_by_field(file: Path) -> None:
    (requirement,) = rule(
        file,
        "  defaults: {peer: {}, token: {issuers: [a], clients: [c]}, source_ips: [10.0.0.0/8], binding: when-present}\n"
        "  rules: [{name: r, matches: [{}], require: {token: {issuers: [b]}}}]\n",
    )
    assert requirement.peer == PeerRequirement()
    assert requirement.token == TokenRequirement(issuers=("b",), clients=("c",))
    assert requirement.source_ips == ("10.0.0.0/8",)
    assert requirement.binding == BindingRequirement(BindingMode.WHEN_PRESENT)


def test_none_switches_a_default_off_by_name(file: Path) -> None:
    (requirement,) = rule(
        file,
        "  defaults: {peer: {}, token: {}, source_ips: [10.0.0.0/8]}\n"
        "  rules: [{name: r, matches: [{}], require: {token: none, source_ips: none}}]\n",
    )
    assert requirement == Requirement(peer=PeerRequirement())
    (requirement,) = rule(
        file, "  defaults: {peer: {}, token: {}}\n  rules: [{name: r, matches: [{}], require: {peer: none}}]\n"
    )
    assert requirement == Requirement(token=TokenRequirement())


@pytest.mark.parametrize("where", ["defaults: {use: [staff]}", "x"])
def test_a_named_set_is_required_in_addition(file: Path, where: str) -> None:
    use = "  defaults: {use: [staff]}\n" if where != "x" else ""
    own = "" if use else ", use: [staff]"
    (policy,) = policies(
        file,
        SET
        + "  {token: {issuers: [corp]}, source_ips: [10.0.0.0/8], binding: required}\n---\n"
        + HEAD
        + use
        + f"  rules: [{{name: r, matches: [{{}}], require: {{peer: {{}}}}{own}}}]\n",
    )
    assert policy.rules[0].requirements == (
        Requirement(peer=PeerRequirement()),
        Requirement(
            token=TokenRequirement(issuers=("corp",)), source_ips=("10.0.0.0/8",), binding=BindingRequirement()
        ),
    )


def test_a_rules_own_sets_are_added_to_the_default_ones(file: Path) -> None:
    (first, *rest) = rule(
        file,
        "  defaults: {use: [staff], peer: {}}\n  rules: [{name: r, matches: [{}], use: [near]}]\n---\n"
        + SET
        + "  token: {}\n---\n"
        + SET.replace("staff", "near")
        + "  source_ips: [10.0.0.0/8]\n",
    )
    assert first == Requirement(peer=PeerRequirement())
    assert rest == [Requirement(token=TokenRequirement()), Requirement(source_ips=("10.0.0.0/8",))]


def test_an_empty_list_drops_the_default_sets(file: Path) -> None:
    (requirement,) = rule(
        file,
        "  defaults: {use: [staff], peer: {}}\n  rules: [{name: r, matches: [{}], use: []}]\n---\n"
        + SET
        + "  token: {}\n",
    )
    assert requirement == Requirement(peer=PeerRequirement())


def test_defaults_inject_into_every_rule_that_is_not_public(file: Path) -> None:
    (policy,) = policies(
        file,
        HEAD
        + """\
  defaults:
    token: {}
    inject: {request_headers: {x-a: a}, remove_request_headers: [authorization]}
  rules:
    - {name: plain, matches: [{path: {value: /a}}]}
    - {name: own, matches: [{path: {value: /b}}], inject: {request_headers: {x-b: b}}}
    - {name: open, matches: [{path: {value: /c}}], public: true, inject: {response_headers: {x-c: c}}}
""",
    )
    plain, own, public = (one.injection for one in policy.rules)
    assert (dict(plain.request_headers), plain.remove_request_headers) == ({"x-a": "a"}, ("authorization",))
    assert (dict(own.request_headers), own.remove_request_headers) == ({"x-b": "b"}, ("authorization",))
    assert (dict(public.request_headers), dict(public.response_headers)) == ({}, {"x-c": "c"})


def with_rule(text: str) -> str:
    return HEAD + f"  rules:\n    - name: r\n      matches: [{{}}]\n      {text}\n"


MISTAKES = [
    # misspelt keys and words
    ("requires: {}", "8:7: spec.rules[0].requires: there is no key `requires` here; did you mean `require`?"),
    (
        "zzz: {}",
        "8:7: spec.rules[0].zzz: there is no key `zzz` here; keys here: name, matches, require, use, public, inject",
    ),
    (
        "require: {peer: {namespace: [a]}}",
        "8:24: spec.rules[0].require.peer.namespace: there is no key `namespace` here; did you mean `namespaces`?",
    ),
    (
        "require: {token: {claims: [{claim: a, equal: b}]}}",
        "8:45: spec.rules[0].require.token.claims[0].equal: there is no key `equal` here; did you mean `equals`?",
    ),
    (
        "require: {binding: requird, token: {}}",
        "8:26: spec.rules[0].require.binding: `requird` is not allowed here; did you mean `required`? write one of",
    ),
    ("require: {peer: nothing}", "8:23: spec.rules[0].require.peer: `nothing` is not allowed here; write `none`"),
    # values of another kind
    ("public: yes", "8:15: spec.rules[0].public: `yes` is text in YAML 1.2; write `true`"),
    ("public: off", "8:15: spec.rules[0].public: `off` is text in YAML 1.2; write `false`"),
    ("public: 1", "8:15: spec.rules[0].public: not `true` or `false`; write one of the two"),
    ("use: staff", "8:12: spec.rules[0].use: not a list; write `[staff]`"),
    ("use: 3", "8:12: spec.rules[0].use: not a list; write `[one, another]`"),
    ("require: []", "8:16: spec.rules[0].require: not a mapping; write `key: value`"),
    ("inject: {request_headers: []}", "8:33: spec.rules[0].inject.request_headers: not a mapping"),
    (
        "inject: {request_headers: {x-v: 1}}",
        "8:39: spec.rules[0].inject.request_headers.x-v: not text; write text, and quote what YAML reads as a number",
    ),
    (
        "require: {token: }",
        "8:24: spec.rules[0].require.token: `token` has no value; write one (`{}` for an empty mapping) or remove the key",
    ),
    ("require: {peer: {spiffe: [null]}}", "spec.rules[0].require.peer.spiffe[0]: not text"),
    (
        "require: {token: {claims: [{claim: a, equals: [1]}]}}",
        "8:53: spec.rules[0].require.token.claims[0].equals: not a text, number, `true` or `false`; write one of these",
    ),
    # values of the policy room
    (
        'require: {peer: {spiffe: ["spiffe://a/b", "https://c"]}}',
        "8:49: spec.rules[0].require.peer.spiffe[1]: `https://c` does not begin with `spiffe://`; write `spiffe://",
    ),
    (
        "require: {peer: {trust_domains: [A]}}",
        "spec.rules[0].require.peer.trust_domains[0]: `A` is not a trust domain; write its bare name",
    ),
    (
        "require: {peer: {namespaces: [a/b]}}",
        "spec.rules[0].require.peer.namespaces[0]: `a/b` cannot be part of a SPIFFE ID; write the bare name",
    ),
    (
        "require: {source_ips: [10.0.0.1/8]}",
        "8:30: spec.rules[0].require.source_ips[0]: `10.0.0.1/8` is not an address or CIDR block without host bits; write",
    ),
    (
        'require: {token: {clients: [""]}}',
        "spec.rules[0].require.token.clients[0]: the text is empty or holds a control character; write printable text",
    ),
    (
        "require: {token: {issuers: [Corp]}}",
        "spec.rules[0].require.token.issuers[0]: a name is lowercase letters, digits, `-`, `_` and `.`",
    ),
    (
        "require: {token: {claims: [{claim: a}]}}",
        "8:34: spec.rules[0].require.token.claims[0]: a claim needs `equals` or `one_of`; write exactly one of the two",
    ),
    (
        "require: {token: {claims: [{claim: a, one_of: []}]}}",
        "8:53: spec.rules[0].require.token.claims[0].one_of: no value is listed, so nothing is allowed",
    ),
    ("require: {token: {claims: [{claim: [], equals: a}]}}", "the list is empty; write at least one item"),
    (
        "require: {token: {claims: [{equals: a}]}}",
        "8:34: spec.rules[0].require.token.claims[0].claim: the key `claim` is missing; write `claim: department`",
    ),
    (
        "require: {token: {}, binding: {accept: []}}",
        "8:46: spec.rules[0].require.binding.accept: nothing is accepted, so every token is denied; write `[x5t#S256]`",
    ),
    (
        "require: {token: {}, binding: {accept: [spiffe-id]}}",
        "8:37: spec.rules[0].require.binding: `spiffe-id` is accepted without `spiffe_id_claim`; write the claim",
    ),
    (
        "require: {token: {}, binding: {spiffe_id_claim: sub}}",
        "8:55: spec.rules[0].require.binding.spiffe_id_claim: the claim is never compared; write `accept:",
    ),
    (
        'public: true, inject: "x"'.replace(", ", "\n      "),
        "9:15: spec.rules[0].inject: not a mapping",
    ),
    (
        'public: true\n      inject: {request_headers: {x-a: "${token.subject}"}}',
        "9:39: spec.rules[0].inject.request_headers.x-a: there is no attribute `token.subject`; write one of token.sub",
    ),
    (
        'public: true\n      inject: {request_headers: {"x a": b}}',
        "9:34: spec.rules[0].inject.request_headers.x a: `x a` is not a header name; write letters, digits and `-`",
    ),
    (
        "public: true\n      inject: {request_headers: {X-A: b, x-a: c}}",
        "9:33: spec.rules[0].inject.request_headers: `X-A` and `x-a` are the same header; keep one of the two",
    ),
    (
        "public: true\n      inject: {remove_request_headers: [connection]}",
        "9:41: spec.rules[0].inject.remove_request_headers[0]: the header `connection` belongs to the connection",
    ),
    (
        "public: true\n      inject: {remove_query_parameters: [a b]}",
        "9:42: spec.rules[0].inject.remove_query_parameters[0]: the query parameter `a b` is not plain; write letters",
    ),
    (
        'public: true\n      inject: {dynamic_metadata: {a: [{b: "${x}"}]}}',
        "9:38: spec.rules[0].inject.dynamic_metadata.a: there is no attribute `x`; write one of token.sub",
    ),
    # what only a whole rule shows
    ("public: false", "6:7: spec.rules[0]: the rule requires nothing; write `public: true` if everyone may pass"),
    ("public: true\n      require: {peer: {}}", "6:7: spec.rules[0]: the rule is public and has requirements; remove"),
    (
        "use: [staff]",
        "8:13: spec.rules[0].use[0]: there is no RequirementSet `staff`; write one of those configured: none",
    ),
    ("require: {peer: {}, binding: required}", "6:7: spec.rules[0]: the rule says how a token is bound and takes none"),
    (
        'require: {peer: {}}\n      inject: {request_headers: {x-s: "${token.sub}"}}',
        "6:7: spec.rules[0]: `${token.sub}` would always be absent: the rule takes no token; add `token: {}`",
    ),
]


@pytest.mark.parametrize(("text", "problem"), MISTAKES)
def test_a_mistake_in_a_rule_is_told_with_its_place_and_what_to_write(file: Path, text: str, problem: str) -> None:
    found = problems(file, with_rule(text))
    assert len(found) == 1, found
    assert problem in found[0]


@pytest.mark.parametrize(
    ("match", "problem"),
    [
        (
            "{path: {value: a}}",
            "7:32: spec.rules[0].matches[0].path.value: the path `a` does not begin with `/`; write",
        ),
        ("{path: {type: exact, value: /}}", "`exact` is not allowed here; did you mean `Exact`? write one of `Exact`"),
        ('{path: {type: RegularExpression, value: "("}}', "`(` is not an RE2 expression: missing ): (; see"),
        ('{path: {type: Template, value: "/a"}}', "the template `/a` has no variable; write `type: Exact`"),
        (
            "{path: {type: Exact}}",
            "spec.rules[0].matches[0].path.value: the key `value` is missing; write `value: /inv",
        ),
        ("{method: get}", "`get` is not allowed here; did you mean `GET`? write one of `GET`, `HEAD`"),
        ("{method: GET, methods: [PUT]}", "spec.rules[0].matches[0].method: both `method` and `methods` are written"),
        ("{methods: []}", "spec.rules[0].matches[0].methods: no method is listed, so nothing matches; write `[GET]`"),
        ('{headers: [{name: ":path", value: x}]}', "`:path` is not a header field here; write `method`, `path`"),
        (
            '{headers: [{name: x, value: "(", type: RegularExpression}]}',
            "matches[0].headers[0].value: `(` is not an RE2",
        ),
        ('{query: [{name: x, value: "(", type: RegularExpression}]}', "matches[0].query[0].value: `(` is not an RE2"),
        (
            "{headers: [{name: x, value: a}, {name: X, value: b}]}",
            "spec.rules[0]: a header is matched twice; write one",
        ),
    ],
)
def test_a_mistake_in_a_match_is_told_with_its_place_and_what_to_write(file: Path, match: str, problem: str) -> None:
    found = problems(file, HEAD + f"  rules:\n    - name: r\n      matches: [{match}]\n      public: true\n")
    assert len(found) == 1, found
    assert problem in found[0]


RULE = "  rules: [{name: r, matches: [{}], public: true}]\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (HEAD + "  rules: []\n", "5:10: spec.rules: the policy has no rules; write at least one, or remove the policy"),
        (HEAD + "  rules: {}\n", "5:10: spec.rules: not a list; write `[one, another]`"),
        (HEAD + "  hostnames: []\n", "5:3: spec.rules: the key `rules` is missing; write `rules:` with a list"),
        (HEAD + RULE + "  targets: [{}]\n", "6:13: spec.targets[0]: the target names no destination; write"),
        (
            HEAD + RULE + '  hostnames: ["a:80"]\n',
            "spec.hostnames[0]: `a:80` is not in its canonical form, without port",
        ),
        (HEAD + RULE + '  hostnames: ["*"]\n', "6:15: spec.hostnames[0]:"),
        (HEAD + RULE + '  targets: [{sni: "A"}]\n', "spec.targets[0].sni: `A` is not in its canonical form"),
        (HEAD.replace("name: p", "name: P") + RULE, "3:18: metadata.name: a name is lowercase letters, digits"),
        (
            HEAD.replace("metadata: {name: p}\n", "") + RULE,
            "metadata: the key `metadata` is missing; write `metadata: {",
        ),
        (
            HEAD.replace("v1alpha1", "v1") + RULE,
            "1:13: apiVersion: `ext-authz/v1` is not allowed here; write `ext-authz/v1a",
        ),
        (
            HEAD.replace("kind: RoutePolicy", "kind: RoutePolici") + RULE,
            "2:7: kind: there is no kind `RoutePolici`; did you",
        ),
        (
            HEAD.replace("kind: RoutePolicy", "kind: Zzz") + RULE,
            "2:7: kind: there is no kind `Zzz`; write `kind: Route",
        ),
        (HEAD.replace("kind: RoutePolicy\n", "") + RULE, "1:1: kind: `kind` is missing; write `kind: RoutePolicy`"),
        (
            HEAD.replace("kind: RoutePolicy", "kind: Server") + RULE,
            "2:7: kind: a server among policies; give this file to",
        ),
        ("[]", "1:1: kind: `kind` is missing"),
        ("text", "1:1: kind: `kind` is missing"),
        ("kind: RoutePolicy", "spec: the key `spec` is missing; write `spec:` with what belongs to it indented below"),
        ("kind: RoutePolicy\nspec: []", "2:7: spec: not a mapping"),
        (HEAD + RULE + "---\n" + HEAD + RULE, "9:18: metadata.name: the name `p` is taken in"),
        (SET + "  {}\n", "5:3: spec: the set requires nothing; write `peer` or `token`"),
        (SET + "  peer: none\n", "5:9: spec.peer: not a mapping"),
        (SET + "  peer: {}\n---\n" + SET + "  peer: {}\n", "9:18: metadata.name: the name `staff` is taken in"),
        (
            HEAD
            + "  rules:\n  - {name: r, matches: [{}], public: true}\n  - {name: r, matches: [{method: GET}], public: true}\n",
            "7:12: spec.rules[1].name: the name `r` is taken in",
        ),
        (
            SET + "  peer: {}\n---\n" + HEAD + "  rules: [{name: r, matches: [{}], use: [stuff]}]\n",
            "spec.rules[0].use[0]: there is no RequirementSet `stuff`; did you mean `staff`?",
        ),
    ],
)
def test_a_mistake_in_a_document_is_told_with_its_place_and_what_to_write(file: Path, text: str, problem: str) -> None:
    assert any(problem in found for found in problems(file, text)), problems(file, text)


def test_a_set_that_is_wrong_is_told_once_and_not_again_where_it_is_used(file: Path) -> None:
    text = SET + "  peer: {spiffe: [x]}\n---\n" + HEAD + "  rules: [{name: r, matches: [{}], use: [staff]}]\n"
    (problem,) = problems(file, text)
    assert "spec.peer.spiffe[0]" in problem


def test_one_mistake_hides_no_other(file: Path) -> None:
    text = """\
apiVersion: ext-authz/v1alpha1
kind: RoutePolicy
metadata: {name: p}
spec:
  hostname: [a.example]
  rules:
    - {name: a, matches: [{methd: GET}], public: true}
    - {name: b, matches: [{}], require: {peer: {spiffe: [x, y]}}}
    - {name: a, matches: [], public: true}
---
apiVersion: ext-authz/v1alpha1
kind: RoutePolicy
metadata: {name: q}
spec:
  rules:
    - {name: c, matches: [{}]}
    - {name: d, matches: [{}], public: true, use: [nobody]}
    - {name: e, matches: []}
    - {name: d, matches: [{}], require: {peer: {}, binding: required}}
"""
    assert [problem.split(": ")[0] for problem in problems(file, text)] == [
        "5:3",  # hostname
        "7:28",  # methd
        "8:58",  # x
        "8:61",  # y
        "9:14",  # name taken
        "16:7",  # requires nothing
        "17:52",  # no such set
        "18:7",  # requires nothing
        "19:7",  # binding without token
        "19:14",  # name taken
    ]


def test_a_target_can_be_a_destination_that_shows_no_identity(file: Path) -> None:
    (policy,) = policies(file, HEAD + "  targets: [{destination_principal: none}]\n" + RULE)
    assert policy.targets == (Target(destination_principal=NO_PRINCIPAL),)
    (problem,) = problems(file, HEAD + "  targets: [{destination_principal: None}]\n" + RULE)
    assert "spec.targets[0].destination_principal: `None`" in problem


def test_findings_of_the_policy_room_are_told_with_their_place(file: Path) -> None:
    file.write_text(
        HEAD
        + """\
  rules:
    - {name: a, matches: [{path: {type: Exact, value: /a}}], require: {peer: {}}}
    - {name: b, matches: [{path: {value: /}}], public: true}
---
apiVersion: ext-authz/v1alpha1
kind: RoutePolicy
metadata: {name: q}
spec:
  targets: [{context_extensions: {w: q}}]
  rules: [{name: r, matches: [{}], public: true}]
"""
    )
    warnings = load_policies([file]).warnings
    assert [warning.replace(f"{file}:", "").split(": ")[:2] for warning in warnings] == [
        ["3:18", "metadata.name"],
        ["6:7", "spec.rules[0]"],
    ]


def test_rules_that_match_the_same_requests_are_a_problem(file: Path) -> None:
    text = HEAD + "  rules: [{name: a, matches: [{}], public: true}, {name: b, matches: [{}], require: {peer: {}}}]\n"
    (problem,) = problems(file, text)
    assert problem.startswith("5:51: spec.rules[1]: it matches the same requests as rule `a`")


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_policies([tmp_path / "missing.yaml", tmp_path, "a\0b"])
    assert [problem.rpartition(": ")[2] for problem in caught.value.problems] == [
        "is a directory; write the name of a readable file",
        "no such file or directory; write the name of a readable file",
        "not a file name; write the name of a readable file",
    ]


def test_expected_decisions_beside_policies_are_passed_over(file: Path) -> None:
    text = HEAD + RULE + "---\nkind: PolicyTests\n"
    assert len(policies(file, text)) == 1
