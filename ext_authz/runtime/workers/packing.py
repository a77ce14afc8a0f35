"""A checked configuration as bytes, so that every worker decides by exactly what the supervisor has read and checked.

Workers never look at files: while those are broken, or are being written, a worker that is started anew still gets what is in
force in the others. What is packed is the loaded configuration and the trust bundles; each worker compiles the policies.
"""

import io
import pickle
from types import MappingProxyType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ext_authz.identity.bundle import Bundle, Bundles
from ext_authz.policy.index import PolicyIndex
from ext_authz.runtime.assembled import Assembly
from ext_authz.runtime.collector import without_collector
from ext_authz.spiffe import TrustDomain

__all__ = ["pack", "unpack"]


def pack(assembly: Assembly) -> bytes:
    """The bytes of `assembly`, without the listener's certificates, which travel by themselves. Takes a while: use a thread."""
    target = io.BytesIO()
    bundles = [
        (bundle.trust_domain, [certificate.public_bytes(Encoding.DER) for certificate in bundle.certificates])
        for bundle in assembly.bundles
    ]
    _Pickler(target, pickle.HIGHEST_PROTOCOL).dump((assembly.configuration, bundles))
    return target.getvalue()


def unpack(packed: bytes) -> Assembly:
    """The assembly again, compiled. Takes a while: use a thread."""
    with without_collector():
        # they come from the process that started this one, over a socket that no one else has
        configuration, packed_bundles = pickle.loads(packed)  # noqa: S301 - as the comment says
        return Assembly(
            configuration,
            PolicyIndex(configuration.policies, configuration.canonical_paths),
            Bundles(_bundle(trust_domain, certificates) for trust_domain, certificates in packed_bundles),
            None,
        )


def _bundle(trust_domain: TrustDomain, certificates: list[bytes]) -> Bundle:
    return Bundle(trust_domain, tuple(x509.load_der_x509_certificate(der) for der in certificates))


class _Pickler(pickle.Pickler):
    """Also takes the read-only mappings that configurations are made of."""

    def reducer_override(self, value: object) -> Any:  # noqa: ANN401 - as the standard library's
        if isinstance(value, MappingProxyType):
            return _mapping, (dict(value),)
        return NotImplemented


def _mapping(values: dict[object, object]) -> MappingProxyType[object, object]:
    return MappingProxyType(values)
