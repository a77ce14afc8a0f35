"""Decision ids are all alike in form and unlike each other."""

import random
import re

from ext_authz.telemetry.decision_id import decision_ids
from ext_authz.wire.check_response import DECISION_ID_LENGTH


def test_an_id_has_the_length_that_answers_are_prepared_for_whatever_the_bits() -> None:
    assert decision_ids(lambda _: 0)() == "0" * DECISION_ID_LENGTH
    assert decision_ids(lambda bits: 2**bits - 1)() == "f" * DECISION_ID_LENGTH


def test_ids_differ() -> None:
    new_id = decision_ids(random.Random(7).getrandbits)
    ids = {new_id() for _ in range(10_000)}
    assert len(ids) == 10_000
    assert all(re.fullmatch("[0-9a-f]{32}", text) for text in ids)
