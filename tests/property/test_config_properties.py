"""Whatever stands in a file, loading gives a Configuration or says what is wrong with it."""

from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.config_files import POLICY, SERVER

from ext_authz.config.load import load, load_policies
from ext_authz.config.problem import Problems
from ext_authz.config.yaml_source import parse_yaml
from ext_authz.errors import ConfigurationError

FUNCTION_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

YAML_SIGNS = st.text(alphabet=st.sampled_from("ab01.-:,[]{}&*!|>'\"#%@` \n\t~?<=\\\x00é\u2028"), max_size=80)


def refusal_of(call: Callable[[], object]) -> tuple[str, ...]:
    """The problems `call` tells; none when it returns."""
    try:
        call()
    except ConfigurationError as error:
        # an error that tells nothing would be none
        return error.problems or ("",)
    return ()


def check(folder: Path, data: bytes) -> None:
    file = folder / "f.yaml"
    file.write_bytes(data)
    problems = (*refusal_of(lambda: load(file)), *refusal_of(lambda: load_policies([file])))
    assert all(problem and problem.isprintable() for problem in problems)


@FUNCTION_FIXTURE
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode), YAML_SIGNS.map(str.encode)))
@example(b"\xef\xbb\xbf")
@example(b"kind: Server\nspec:\n  policies: ['[', '**', '/', '..', '~']\n")
def test_any_bytes_load_or_are_refused(tmp_path: Path, data: bytes) -> None:
    check(tmp_path, data)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A configuration with a piece cut out and something else put in."""
    text = draw(st.sampled_from([SERVER + "---\n" + POLICY, SERVER, POLICY]))
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 30)))
    piece = draw(
        st.one_of(YAML_SIGNS, st.sampled_from(["null", "{}", "[]", "1", "1.5", "true", "[[]]", "x: y", "none"]))
    )
    return text[:start] + piece + text[end:]


@FUNCTION_FIXTURE
@given(damaged())
def test_a_damaged_configuration_loads_or_is_refused(tmp_path: Path, text: str) -> None:
    check(tmp_path, text.encode("utf-8", "replace"))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from(["", "x", "none", "*", "spiffe://a/b", "${token.sub}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "rules",
                    "matches",
                    "path",
                    "value",
                    "type",
                    "method",
                    "require",
                    "peer",
                    "token",
                    "claims",
                    "claim",
                    "equals",
                    "binding",
                    "accept",
                    "use",
                    "inject",
                    "request_headers",
                    "dynamic_metadata",
                    "public",
                    "spiffe",
                    "scopes",
                    "all",
                    "source_ips",
                    "targets",
                    "hostnames",
                    "sni",
                    "defaults",
                    "issuers",
                    "keys",
                    "evidence",
                    "certificate_sources",
                    "listener",
                    "admin",
                    "trust_bundles",
                    "inline",
                    "xfcc",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@FUNCTION_FIXTURE
@given(st.sampled_from(["Server", "RoutePolicy", "RequirementSet"]), VALUES)
def test_any_structure_loads_or_is_refused(tmp_path: Path, kind: str, spec: object) -> None:
    text = f"apiVersion: ext-authz/v1alpha1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec_text(spec)}\n"
    check(tmp_path, text.encode())


def spec_text(value: object) -> str:
    """A value in YAML's flow style, written without the library under test."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case list():
            return "[" + ", ".join(spec_text(item) for item in value) + "]"
        case dict():
            return "{" + ", ".join(f"{key}: {spec_text(item)}" for key, item in value.items()) + "}"
        case int():
            return str(value)
        case _:
            return f"'{value}'"


@given(VALUES)
def test_a_value_reads_back_as_it_was_written(value: object) -> None:
    problems = Problems()
    documents = parse_yaml(spec_text(value).encode(), "f", problems)
    problems.raise_if_any()
    assert [document.value for document in documents] == ([] if value is None else [value])


def test_a_thousand_rules_load(tmp_path: Path) -> None:
    rules = "".join(
        f"    - {{name: r{n}, matches: [{{path: {{value: /r{n}}}}}], require: {{peer: {{}}}}}}\n" for n in range(1000)
    )
    file = tmp_path / "p.yaml"
    file.write_text(POLICY[: POLICY.index("    - name: read")] + rules)
    (policy,) = load_policies([file]).policies
    assert len(policy.rules) == 1000
