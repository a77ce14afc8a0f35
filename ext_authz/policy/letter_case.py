"""Letter case, as loosely as any upstream may take it: what one of them could treat as equal folds to one text."""

from typing import Final

__all__ = ["fold"]

_DOT_ABOVE: Final = "\u0307"


def fold(text: str) -> str:
    """`text` without letter case.

    `str.casefold` (Unicode §3.13) alone is what case-insensitive comparison is meant to be, and some do it otherwise: Java's
    `equalsIgnoreCase` and every comparison of capitals take the dotless `\u0131` for `i`, because both have the capital
    `I`; a comparison of small letters takes `\u0130` for `i`, in two characters of which the second is a dot above. So
    capitals are made first, which joins `\u0131` with `i` and `\u017f` with `s`; folding joins the Kelvin sign with `k`;
    and the dot above is left out.
    """
    return text.upper().casefold().replace(_DOT_ABOVE, "")
