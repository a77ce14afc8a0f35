"""SPIFFE IDs: any text yields an ID that writes itself back, or our own refusal."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ext_authz.errors import Reason, Refusal
from ext_authz.spiffe import SpiffeId

looks_like_an_id = st.lists(
    st.sampled_from(
        ["spiffe://", "td", "/", "a", "A", ".", "..", "%2f", ":", "@", "?", "#", "-", "_", "\n", "ns", "sa"]
    ),
    max_size=8,
).map(lambda pieces: "spiffe://" + "".join(pieces))


@settings(deadline=None)
@given(st.text() | looks_like_an_id)
def test_any_text_yields_the_id_it_spells_or_a_refusal(text: str) -> None:
    try:
        spiffe_id = SpiffeId.parse(text)
    except Refusal as refusal:
        reason = refusal.reason
    else:
        assert str(spiffe_id) == text
        assert SpiffeId.parse(str(spiffe_id)) == spiffe_id
        return
    assert reason is Reason.SPIFFE_ID_MALFORMED
