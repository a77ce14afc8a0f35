"""What happens to signing keys, for log and metrics."""

import logging

from ext_authz.runtime.key_fault import KeyFetchError
from ext_authz.telemetry.metrics import Metrics
from ext_authz.telemetry.server_log import log_event
from ext_authz.token.jwks import KeySet

__all__ = ["KeyReport"]

_logger = logging.getLogger(__name__)


class KeyReport:
    """`KeyEvents` that counts and logs."""

    def __init__(self, metrics: Metrics) -> None:
        """Count in `metrics`."""
        self._metrics = metrics

    def fetched(self, issuer_name: str, keys: KeySet, *, changed: bool) -> None:
        """Count; log what changed, and each key that verifies nothing with the reason."""
        self._metrics.key_fetch(issuer_name)
        if not changed:
            return
        log_event(_logger, logging.INFO, "keys loaded", issuer=issuer_name, keys=len(keys.keys))
        for refused in keys.refused:
            log_event(
                _logger,
                logging.WARNING,
                "a key of the issuer is not used",
                issuer=issuer_name,
                position=refused.position,
                key_id=refused.key_id,
                fault=refused.fault.value,
            )

    def fetch_failed(self, issuer_name: str, error: KeyFetchError, failures: int) -> None:
        """Count and log."""
        self._metrics.key_fetch(issuer_name, fault=error.fault.value)
        log_event(
            _logger,
            logging.WARNING,
            "keys could not be fetched",
            issuer=issuer_name,
            fault=error.fault.value,
            detail=error.detail,
            failures=failures,
        )

    def expired(self, issuer_name: str) -> None:
        """Log."""
        log_event(_logger, logging.ERROR, "keys are too old and were dropped", issuer=issuer_name)
