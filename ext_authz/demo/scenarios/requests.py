"""Requests that two readers could understand differently: paths, credentials given twice, methods in headers."""

from ext_authz.demo.caller import Answer, Call
from ext_authz.demo.scenario import Scenario, Stage, upstream_saw
from ext_authz.errors import Reason

__all__ = ["REQUESTS"]


def _trick(title: str, target: str, reason: Reason = Reason.PATH_MALFORMED) -> Scenario:
    """A path that reads as a public one to some and as a protected one to others."""
    return Scenario(title, lambda stage: stage.call(target), 400, reason)


def _twice(stage: Stage) -> Call:
    second = (("Authorization", "Bearer another"),)
    return stage.call("/invoices", certificate="mywebsite", token=stage.token(), headers=second)


def _saw_get_without_override(answer: Answer) -> str | None:
    if answer.json().get("method") != "GET":
        return "upstream saw another method"
    return upstream_saw(x_http_method_override=None)(answer)


REQUESTS = (
    _trick("dot segments out of a public route", "/healthz/../invoices"),
    _trick("encoded dot segments", "/healthz/%2e%2e/invoices"),
    _trick("encoded slash", "/healthz%2f..%2finvoices"),
    _trick("double encoding", "/healthz/%252e%252e/invoices"),
    _trick("backslash", "/healthz\\..\\invoices"),
    _trick("empty segment", "//invoices"),
    _trick("path parameter", "/healthz;/../invoices"),
    _trick("overlong UTF-8", "/%c0%af/invoices"),
    _trick("another letter case", "/INVOICES", Reason.PATH_AMBIGUOUS),
    Scenario("two Authorization headers", _twice, 400, Reason.MULTIPLE_CREDENTIALS),
    Scenario(
        "two tokens in one Authorization header",
        lambda stage: stage.call("/invoices", certificate="mywebsite", token=f"{stage.token()},Bearer another"),
        400,
        Reason.MULTIPLE_CREDENTIALS,
    ),
    Scenario(
        "token in the query",
        lambda stage: stage.call(f"/invoices?access_token={stage.token()}", certificate="mywebsite"),
        401,
        Reason.TOKEN_IN_QUERY,
    ),
    Scenario(
        "token in the header and in the query",
        lambda stage: stage.call("/invoices?access_token=another", certificate="mywebsite", token=stage.token()),
        400,
        Reason.MULTIPLE_CREDENTIALS,
    ),
    Scenario(
        "Basic instead of Bearer",
        lambda stage: stage.call(
            "/invoices", certificate="mywebsite", headers=(("Authorization", "Basic YWxpY2U6c2VjcmV0"),)
        ),
        401,
        Reason.AUTHORIZATION_SCHEME_NOT_SUPPORTED,
    ),
    Scenario(
        "method override header: removed",
        lambda stage: stage.call(
            "/invoices",
            certificate="mywebsite",
            token=stage.token(),
            headers=(("X-HTTP-Method-Override", "DELETE"),),
        ),
        200,
        Reason.OK,
        _saw_get_without_override,
    ),
    Scenario(
        "unknown method",
        lambda stage: stage.call("/invoices", method="PROPFIND", certificate="mywebsite", token=stage.token()),
        403,
        Reason.METHOD_NOT_SUPPORTED,
    ),
)
