"""Answers that tell the decision id are those without it, and the id."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_authz.decision import Allow, Deny, Mutations
from ext_authz.denials import Denials, DenialSettings
from ext_authz.errors import Reason
from ext_authz.principal import JsonValue
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from ext_authz.wire.check_response import says_internal_error, serialize

ID = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32


def answer(data: bytes) -> CheckResponse:
    return CheckResponse.FromString(data)


def metadata(response: CheckResponse) -> dict[str, object]:
    return {name: value.string_value for name, value in response.dynamic_metadata.fields.items()}


def without_metadata(response: CheckResponse) -> CheckResponse:
    response.ClearField("dynamic_metadata")
    return response


ALLOW = Allow(Reason.OK, Mutations(set_request_headers=(("x-a", "b"),), remove_request_headers=("x-c",)))


@pytest.mark.parametrize("reason", [Reason.OK, Reason.PUBLIC_ROUTE])
def test_an_allowed_request_has_id_and_reason_in_the_metadata_and_is_otherwise_the_same(reason: Reason) -> None:
    response = answer(serialize(ALLOW._replace(reason=reason), ID))
    assert metadata(response) == {"decision_id": ID, "reason": reason.value}
    assert without_metadata(response) == answer(serialize(ALLOW))


def test_without_metadata_an_allowed_request_is_as_without_an_id() -> None:
    assert serialize(ALLOW, ID, id_in_metadata=False) == serialize(ALLOW)


def test_the_metadata_of_a_rule_stay_and_cannot_take_the_names_that_are_ours() -> None:
    own: dict[str, JsonValue] = {"team": "billing", "decision_id": "mine", "reason": "mine"}
    response = answer(serialize(ALLOW._replace(dynamic_metadata=own), ID))
    assert metadata(response) == {"team": "billing", "decision_id": ID, "reason": "ok"}
    response = answer(serialize(ALLOW._replace(dynamic_metadata=own), ID, id_in_metadata=False))
    assert response.dynamic_metadata.fields["reason"].string_value == "mine"


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in {Reason.OK, Reason.PUBLIC_ROUTE}])
@pytest.mark.parametrize("template", [None, "${decision_id}", "a ${decision_id} b ${decision_id}ü", "none", ""])
def test_a_denial_is_the_same_with_the_id_where_it_is_wanted(reason: Reason, template: str | None) -> None:
    denial = Denials(DenialSettings(body_template=template)).deny(reason, scopes=("a",))
    for decision_id in (ID, OTHER):
        response = answer(serialize(denial, decision_id))
        assert metadata(response) == {"decision_id": decision_id, "reason": reason.value}
        body = decision_id.join(denial.identified_body) if denial.identified_body else denial.body
        assert response.denied_response.body == body
        assert (decision_id in body) == (template is None or "decision_id" in template)
        plain = answer(serialize(denial))
        plain.denied_response.body = body
        assert without_metadata(response) == plain


def test_the_body_can_tell_the_id_while_the_metadata_do_not() -> None:
    response = answer(serialize(Denials(DenialSettings()).deny(Reason.NO_RULE), ID, id_in_metadata=False))
    assert ID in response.denied_response.body
    assert not response.HasField("dynamic_metadata")


def test_a_denial_with_metadata_of_its_own_keeps_them() -> None:
    denial = Deny(Reason.NO_RULE, 403, body="b", dynamic_metadata={"team": "billing"}, identified_body=("<", ">"))
    response = answer(serialize(denial, ID))
    assert metadata(response) == {"team": "billing", "decision_id": ID, "reason": "no_rule"}
    assert response.denied_response.body == f"<{ID}>"
    denial = Deny(Reason.NO_RULE, 403, body="b", dynamic_metadata={"a": float("nan")})
    response = answer(serialize(denial, ID))
    assert response.denied_response.body == "b"
    assert not response.HasField("dynamic_metadata")


def test_an_error_response_tells_the_id_too() -> None:
    denial = Denials(DenialSettings()).deny(Reason.SIGNING_KEYS_UNAVAILABLE)
    response = answer(serialize(denial, ID, errors_as_error_response=True))
    assert ID in response.error_response.body
    assert response.status.code == 14


@pytest.mark.parametrize("decision_id", ["short", "é" * 32, "0" * 33])
def test_an_id_of_another_form_never_makes_an_allow(decision_id: str) -> None:
    assert says_internal_error(serialize(ALLOW, decision_id))
    assert answer(serialize(Denials(DenialSettings()).deny(Reason.NO_RULE), decision_id)).status.code != 0


@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.tuples(st.text(), st.text()), max_size=3))
def test_any_body_is_written_whole(parts: list[str], headers: list[tuple[str, str]]) -> None:
    denial = Deny(Reason.NO_RULE, 403, tuple(headers), identified_body=tuple(parts))
    assert answer(serialize(denial, ID)).denied_response.body == ID.join(parts)
