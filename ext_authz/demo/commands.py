"""The curl commands that the demo prints: they work when pasted."""

import shlex

from ext_authz.demo.stack import Stack

__all__ = ["commands_to_try"]

_PICK_OUT = """python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])'"""


def commands_to_try(stack: Stack) -> str:
    """A token for mywebsite, the request it is good for, and two that it is not good for."""
    token = f"TOKEN=$({_curl(stack, 'auth', '/token', 'mywebsite')}"
    token += f" -d grant_type=client_credentials -d client_id=mywebsite | {_PICK_OUT})"
    bearer = '-H "Authorization: Bearer $TOKEN"'
    steps = (
        ("a token for mywebsite, by its certificate", token),
        ("with the certificate it was issued to", f"{_curl(stack, 'billing', '/invoices', 'mywebsite')} {bearer}"),
        ("stolen: with another certificate", f"{_curl(stack, 'billing', '/invoices', 'reporting')} {bearer}"),
        (
            "after the certificate was renewed, where the rule accepts spiffe-id",
            f"{_curl(stack, 'billing', '/reports', 'mywebsite-renewed')} {bearer}",
        ),
        ("a public route", _curl(stack, "billing", "/healthz", None)),
    )
    return "\n\n".join(f"# {title}\n{command}" for title, command in steps)


def _curl(stack: Stack, endpoint: str, target: str, credential: str | None) -> str:
    at = stack.endpoints[endpoint]
    words = ["curl", "-sS", "-i"] if endpoint != "auth" else ["curl", "-sS"]
    words += ["--cacert", stack.path(stack.ca_file), "--resolve", f"{at.server_name}:{at.port}:{at.host}"]
    if credential is not None:
        pair = stack.credential(credential)
        words += ["--cert", pair.certificate_file, "--key", pair.key_file]
    return shlex.join([*words, f"https://{at.server_name}:{at.port}{target}"])
