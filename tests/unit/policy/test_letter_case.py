import pytest

from ext_authz.policy.letter_case import fold


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Admin", "aDMIN"),
        ("adm\u0131n", "admin"),
        ("ADM\u0130N", "admin"),
        ("admi\u0307n", "admin"),
        ("\u017fecret", "secret"),
        ("\u212aelvin", "kelvin"),
        ("stra\u00dfe", "STRASSE"),
        ("\u1e9e", "ss"),
        ("\u03c3\u03c2", "\u03a3\u03a3"),
        ("\u00c9", "\u00e9"),
        ("\ufb01le", "FILE"),
    ],
)
def test_texts_that_some_upstream_takes_as_equal_fold_to_one(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(("one", "other"), [("admin", "admln"), ("e", "\u00e9"), ("1", "l"), ("a", "\u0430")])
def test_letters_that_only_look_alike_stay_apart(one: str, other: str) -> None:
    assert fold(one) != fold(other)


@pytest.mark.parametrize("first", range(0, 0x11_0000, 0x1_0000))
def test_folding_holds_all_that_any_comparison_of_single_letters_holds(first: int) -> None:
    for number in range(first, first + 0x1_0000):
        letter = chr(number)
        small, capital = letter.lower(), letter.upper()
        assert fold(fold(letter)) == fold(letter)
        assert fold(capital) == fold(letter)
        assert fold(small) == fold(letter)
        assert fold(letter.casefold()) == fold(letter)
