"""From written issuers to their terms; what is unsafe is refused unless its flag names it."""

import json
from types import MappingProxyType

from ext_authz.config.files import NamedFiles, check_roots
from ext_authz.config.model_issuer import MAX_SKEW_SECONDS, WrittenIssuer, WrittenKeys
from ext_authz.config.naming import refuse_twice
from ext_authz.config.problem import Problems, shown
from ext_authz.config.server_words import is_plain_http
from ext_authz.config.validation import field_name
from ext_authz.config.yaml_source import Document, ValuePath
from ext_authz.errors import Refusal
from ext_authz.token.issuer import DiscoveredKeys, InlineKeys, Issuer, KeyFile, KeySource, KeyUrl
from ext_authz.token.jwk import KeyFault
from ext_authz.token.jwks import KeySet

__all__ = ["Issuers"]

_GENERIC_TYPES = frozenset({"jwt", "jose", ""})


class Issuers:
    """Builds issuers one by one, and collects the flags that make them unsafe.

    Attributes:
        built: by name.
        insecure: a sentence for each flag that is on.
    """

    def __init__(self, document: Document, files: NamedFiles, problems: Problems) -> None:
        self._document = document
        self._files = files
        self._problems = problems
        self._names: list[tuple[Document, ValuePath, str]] = []
        self._identifiers: list[tuple[Document, ValuePath, str]] = []
        self.built: dict[str, Issuer] = {}
        self.insecure: list[str] = []

    def refuse_twice(self) -> None:
        """No two issuers have one name, nor one `iss`: whose keys would count?"""
        refuse_twice(self._names, self._problems)
        refuse_twice(self._identifiers, self._problems)

    def add(self, written: WrittenIssuer, at: ValuePath) -> None:
        """Build the issuer that is written at `at`, and record what is wrong or unsafe about it."""
        self._names.append((self._document, (*at, "name"), written.name))
        self._identifiers.append((self._document, (*at, "issuer"), written.issuer))
        self._check_safety(written, at)
        self._check_keys(written, (*at, "keys"))
        self.built[written.name] = Issuer(
            name=written.name,
            issuer=written.issuer,
            audiences=frozenset(written.audiences),
            any_audience=written.insecure_any_audience,
            plain_http=written.insecure_allow_http,
            keys=self._keys(written.keys),
            algorithms=frozenset(written.algorithms),
            types=frozenset(written.types),
            required_claims=frozenset(written.required_claims),
            skew=written.skew_seconds,
            maximum_lifetime=written.maximum_lifetime_seconds,
            client_id_claim=written.client_id_claim,
            scope_claim=written.scope_claim,
            scope_array=written.scope_array,
            ignored_headers=frozenset(written.ignored_headers),
        )

    def _keys(self, keys: WrittenKeys) -> KeySource:
        ca_file = None if keys.ca_file is None else self._files.resolve(keys.ca_file)
        if keys.url is not None:
            return KeyUrl(keys.url, ca_file)
        if keys.file is not None:
            return KeyFile(self._files.resolve(keys.file))
        if keys.inline is not None:
            return InlineKeys(json.dumps(keys.inline))
        return DiscoveredKeys(keys.metadata_url, ca_file)

    def _check_keys(self, written: WrittenIssuer, at: ValuePath) -> None:
        keys = written.keys
        if keys.discovery and not written.issuer.startswith(("https://", "http://")):
            self._problem((*at, "discovery"), "the issuer is not a URL, so nothing can be discovered", "write `url`")
        if keys.ca_file is not None:
            self._files.check(keys.ca_file, (*at, "ca_file"), check_roots, "write a PEM file with CA certificates")
        if keys.file is not None:
            self._files.check(keys.file, (*at, "file"), _check_key_set, "write a JWKS file with public keys")
        if keys.inline is not None:
            try:
                _check_key_set(json.dumps(keys.inline).encode())
            except ValueError as error:
                self._problem((*at, "inline"), str(error), "write a JWKS with public keys")

    def _check_safety(self, written: WrittenIssuer, at: ValuePath) -> None:
        """Each danger needs its own flag, and each flag its danger."""
        for key, url in (
            ("issuer", written.issuer),
            ("url", written.keys.url),
            ("metadata_url", written.keys.metadata_url),
        ):
            if url is not None and is_plain_http(url):
                path = (*at, key) if key == "issuer" else (*at, "keys", key)
                self._danger(
                    written.insecure_allow_http,
                    path,
                    f"{shown(url)} is plain http to another host",
                    "write `https`, or `insecure_allow_http: true` on a network where nobody else can listen or write",
                )
        self._check_audiences(written, at)
        generic = [name for name in written.types if name in _GENERIC_TYPES]
        if generic:
            self._danger(
                written.insecure_accept_generic_jwt_type,
                (*at, "types"),
                f"the type {shown(generic[0])} is also that of ID tokens and other JWTs (RFC 8725 §3.11)",
                "let the issuer send `at+jwt` (RFC 9068), or write `insecure_accept_generic_jwt_type: true` and "
                "require a claim that only its access tokens have",
            )
        if written.skew_seconds > MAX_SKEW_SECONDS:
            self._danger(
                written.insecure_large_skew,
                (*at, "skew_seconds"),
                f"tokens would be accepted for {written.skew_seconds:g} seconds after they expire",
                f"write at most {MAX_SKEW_SECONDS:g}, or `insecure_large_skew: true`",
            )
        self.insecure += [
            f"issuer `{written.name}`: {flag}: {sentence}"
            for flag, sentence in _INSECURE.items()
            if getattr(written, flag)
        ]

    def _check_audiences(self, written: WrittenIssuer, at: ValuePath) -> None:
        path = (*at, "audiences")
        if "*" in written.audiences:
            self._problem(
                (*path, written.audiences.index("*")),
                "`*` is compared as it stands, like any audience",
                "write this service's audience; to accept any, leave `audiences` out and write `insecure_any_audience: true`",
            )
        elif written.audiences and written.insecure_any_audience:
            self._problem(
                (*at, "insecure_any_audience"), "`audiences` would have no effect", "remove one of the two keys"
            )
        elif not written.audiences:
            self._danger(
                written.insecure_any_audience,
                path,
                "no audience is written, so tokens for other services would be accepted",
                "write this service's audience, or `insecure_any_audience: true`",
            )

    def _danger(self, allowed: bool, path: ValuePath, wrong: str, instead: str) -> None:
        if not allowed:
            self._problem(path, wrong, instead)

    def _problem(self, path: ValuePath, wrong: str, instead: str) -> None:
        self._problems.add(self._document.place(path), field_name(path), wrong, instead)


_INSECURE = MappingProxyType(
    {
        "insecure_allow_http": "whoever is between here and the issuer can replace its keys",
        "insecure_any_audience": "tokens that were issued for other services are accepted",
        "insecure_accept_generic_jwt_type": "other JWTs of the issuer, such as ID tokens, may pass as access tokens",
        "insecure_large_skew": "expired tokens are accepted for longer than clocks explain",
    }
)


def _check_key_set(data: bytes) -> None:
    try:
        keys = KeySet.from_json(data)
    except Refusal as refusal:
        raise ValueError(refusal.detail) from None
    for refused in keys.refused:
        # keys for encryption and of new kinds are passed over; a secret here has leaked
        if not keys.keys or refused.fault in {KeyFault.PRIVATE, KeyFault.SYMMETRIC}:
            raise ValueError(f"key {refused.position + 1} cannot be used: {refused.fault.replace('_', ' ')}")
