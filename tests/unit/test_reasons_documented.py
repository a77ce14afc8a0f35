"""The catalogue of reasons tells the truth about every reason there is."""

import re
from pathlib import Path

import pytest

from ext_authz.denials import kind_of
from ext_authz.errors import Reason

TEXT = (Path(__file__).parents[2] / "docs" / "reasons.md").read_text()
ROWS = dict(re.findall(r"^\| `([a-z0-9_]+)` \| (\d{3}) \|", TEXT, re.MULTILINE))
ALLOWING = {Reason.OK, Reason.PUBLIC_ROUTE}


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in ALLOWING])
def test_every_denial_is_in_the_catalogue_with_its_status(reason: Reason) -> None:
    assert ROWS[reason.value] == str(kind_of(reason).status)


def test_the_catalogue_has_no_reason_that_does_not_exist() -> None:
    assert set(ROWS) == {reason.value for reason in Reason if reason not in ALLOWING}
    assert all(f"| `{reason}` |" in TEXT for reason in ALLOWING)


@pytest.mark.parametrize("reason", sorted(ROWS))
def test_every_denial_has_a_cause_and_a_cure(reason: str) -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{reason}` |"))
    _, _, status, cause, cure, _ = re.split(r"(?<!\\)\|", row)
    assert status.strip().isdigit()
    assert len(cause.split()) >= 2
    assert len(cure.split()) >= 2
