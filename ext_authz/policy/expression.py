"""Regular expressions of policies: RE2, whole text, time linear in the text whatever the expression."""

from collections.abc import Callable

import re2  # type: ignore[import-untyped]  # has neither stubs nor a py.typed marker

__all__ = ["MAX_EXPRESSION_LENGTH", "MAX_PROGRAM_SIZE", "compile_expression"]

MAX_EXPRESSION_LENGTH = 1024
"""Characters; a longer one is a list of paths, which rules hold better."""

MAX_PROGRAM_SIZE = 2000
"""RE2 instructions: the cost of one character is bounded by it. Envoy warns at 100; ours are matched far more rarely."""

_MAX_MEMORY = 1 << 20  # bytes for the compiled expression and its automaton; RE2 falls back to a slower one beyond


def compile_expression(pattern: str, *, ignore_case: bool = False) -> Callable[[str], bool]:
    """`pattern` as a test of a whole text.

    Raises:
        ValueError: for what RE2 does not accept (look-around and back-references among it) or a too large expression.
    """
    if len(pattern) > MAX_EXPRESSION_LENGTH:
        raise ValueError(f"an expression is longer than {MAX_EXPRESSION_LENGTH} characters; write several matches")
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = _MAX_MEMORY
    options.case_sensitive = not ignore_case
    try:
        # bytes, because with `str` the module counts characters to place a match that nobody asks for
        compiled = re2.compile(pattern.encode(), options)
    except (re2.error, UnicodeEncodeError) as error:
        cause = error.args[0].decode() if isinstance(error.args[0], bytes) else "it is not UTF-8"
        raise ValueError(
            f"`{pattern}` is not an RE2 expression: {cause}; see https://github.com/google/re2/wiki/Syntax"
        ) from None
    if compiled.programsize > MAX_PROGRAM_SIZE:
        raise ValueError(
            f"`{pattern}` compiles to {compiled.programsize} instructions, more than {MAX_PROGRAM_SIZE}; "
            "write a simpler one, or several matches"
        )
    fullmatch = compiled.fullmatch
    # a lone surrogate, which no UTF-8 message can hold, becomes bytes that match nothing
    return lambda text: fullmatch(text.encode(errors="surrogatepass")) is not None
