"""YAML is read in one way only, and every value knows where it stands."""

import pytest

from ext_authz.config.problem import Place, Problems
from ext_authz.config.yaml_source import MAX_DEPTH, MAX_FILE_BYTES, Document, PlainValue, parse_yaml
from ext_authz.errors import ConfigurationError


def parsed(text: str | bytes) -> tuple[Document, ...]:
    problems = Problems()
    documents = parse_yaml(text.encode() if isinstance(text, str) else text, "f.yaml", problems)
    problems.raise_if_any()
    return documents


def problem_of(text: str | bytes) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parsed(text)
    assert len(caught.value.problems) == 1, caught.value.problems
    return caught.value.problems[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x", "x"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("1", 1),
        ("-7", -7),
        ("+7", 7),
        ("0", 0),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("true", True),
        ("FALSE", False),
        ("[~, null, '']", [None, None, ""]),
        ("{a: }", {"a": None}),
        ("[a, [b]]", ["a", ["b"]]),
        ("{a: {b: c}}", {"a": {"b": "c"}}),
        ("{1: a, true: b}", {"1": "a", "true": "b"}),
        # YAML 1.1 reads these as booleans, octal, sexagesimal and dates
        ("[yes, no, on, off, y, n]", ["yes", "no", "on", "off", "y", "n"]),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("{<<: {a: b}}", {"<<": {"a": "b"}}),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ("\ufeffx", "x"),
        ("-x", "-x"),
        (".5.5", ".5.5"),
    ],
)
def test_a_value_is_read_by_the_core_schema(text: str, value: PlainValue) -> None:
    (document,) = parsed(text)
    assert document.value == value
    assert type(document.value) is type(value)


def test_a_file_may_hold_several_documents_and_empty_ones_are_left_out() -> None:
    assert [document.value for document in parsed("---\n# nothing\n---\na\n---\n---\nb\n")] == ["a", "b"]
    assert parsed("") == ()


def test_places_count_from_one_in_characters() -> None:
    (document,) = parsed("a: ä\nb:\n  - {c: d, ü: e}\n")
    assert document.place(("a",)) == Place("f.yaml", 1, 4)
    assert document.place(("b", 0, "ü")) == Place("f.yaml", 3, 15)
    assert document.place(("b", 0, "ü"), of_key=True) == Place("f.yaml", 3, 12)
    assert str(document.place(("b", 0))) == "f.yaml:3:5"


def test_the_place_of_what_is_not_there_is_that_of_its_nearest_ancestor() -> None:
    (document,) = parsed("a:\n  b: c\n")
    assert document.place(("a", "x", "y")) == Place("f.yaml", 2, 3)
    assert document.place(("a", "b", "y")) == Place("f.yaml", 2, 6)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &x 1", "f.yaml:1:4: anchors are not supported; remove the `&` name"),
        ("a: *x", "f.yaml:1:4: aliases are not supported; write the value out"),
        ("&x a: 1", "f.yaml:1:1: anchors and tags are not supported; write the key alone"),
        ("a: !!str 1", "f.yaml:1:4: tags are not supported"),
        ("a: !!python/object:os.system x", "f.yaml:1:4: tags are not supported"),
        ("!x {a: b}", "f.yaml:1:1: tags are not supported"),
        ("a: 1\nb: 2\na: 3", "f.yaml:3:1: the key `a` is here twice, first in line 1; keep one of the two"),
        ("? [a]\n: b", "f.yaml:1:3: a key must be plain text; write `key: value`"),
        ("? {a: b}\n: {c: d}", "f.yaml:1:3: a key must be plain text"),
        ("a: 010", "f.yaml:1:4: `010` is octal to some parsers; drop the leading zero"),
        ("a: .inf", "f.yaml:1:4: `.inf` is not a finite number"),
        ("a: -.INF", "f.yaml:1:4: `-.INF` is not a finite number"),
        ("a: .nan", "f.yaml:1:4: `.nan` is not a finite number"),
        ("a: 1e400", "f.yaml:1:4: `1e400` is too large"),
        ("a: " + "9" * 5000, "f.yaml:1:4: a number of more than 32 digits; quote it if it is text"),
        ("a: 1\n  b: 2", "f.yaml:2:4: not valid YAML: mapping values are not allowed in this context; indent the key"),
        ("a: [1, 2\nb: 3", "f.yaml:2:2: not valid YAML: did not find expected ',' or ']'; close the bracket"),
        ("a: 'x", "f.yaml:1:6: not valid YAML: found unexpected end of stream; close the quote"),
        (
            "\ta: 1",
            "f.yaml:1:1: not valid YAML: found character that cannot start any token; quote the text, and indent",
        ),
        ("{a: ${b}}", "f.yaml:1:6: not valid YAML: did not find expected ',' or '}'; close the bracket, and quote"),
        ('a: "\\d"', "f.yaml:1:5: not valid YAML: found unknown escape character; use single quotes"),
        ("ok: ä\nb: \x01", "f.yaml:2:4: not valid YAML: control characters are not allowed; remove the character"),
        ("a: b\n- c", "f.yaml:2:1: not valid YAML: did not find expected key; indent keys of one mapping alike"),
        ("a: \udcff".encode("utf-8", "surrogatepass"), "f.yaml:1:4: a byte is not UTF-8; save the file as UTF-8"),
        (b"a: b\nc: \xff", "f.yaml:2:4: a byte is not UTF-8"),
        ("[" * 5000 + "]" * 5000, f"f.yaml:1:{MAX_DEPTH + 1}: nested deeper than {MAX_DEPTH} levels"),
        ("{a: " * 30 + "b" + "}" * 30, f"nested deeper than {MAX_DEPTH} levels"),
    ],
)
def test_what_cannot_be_read_in_one_way_is_refused_at_its_place(text: str | bytes, problem: str) -> None:
    assert problem in problem_of(text)


def test_a_file_that_is_too_large_is_refused_unread() -> None:
    assert "larger than" in problem_of(b"#" * (MAX_FILE_BYTES + 1))


def test_a_syntax_error_spoils_nothing_that_came_before_it() -> None:
    problems = Problems()
    documents = parse_yaml(b"a: 1\n---\nb: [\n", "f.yaml", problems)
    assert [document.value for document in documents] == [{"a": 1}]
    assert len(problems) == 1


def test_every_doubtful_value_of_a_file_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parsed("a: &x 1\nb: 010\na: 2\n")
    assert [line.split(":")[1] for line in caught.value.problems] == ["1", "2", "3"]
