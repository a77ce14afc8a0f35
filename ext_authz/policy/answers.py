"""What rules say to callers they let pass, worded once for each rule, peer and token.

Nothing is decided from here: whoever asks has verified both, matched them and held them against the rule for the request
at hand. Only the words of the answer are the same as the last time.
"""

from math import inf
from typing import TypeAlias

from ext_authz.cache import BoundedCache
from ext_authz.decision import Allow, Mutations
from ext_authz.policy.compiled import CompiledRule
from ext_authz.principal import Peer, VerifiedToken

__all__ = ["AnswerCache", "is_short"]

LONGEST_CHARACTERS = 4_096
"""Of the header values of an answer that is kept, also as it is written: a certificate and some claims. A token can bring
12 KB of claims for each header, and what is long anyway costs little to word again.
"""

_Key: TypeAlias = tuple[int, int, int]
_Parties: TypeAlias = tuple[CompiledRule, Peer | None, VerifiedToken | None]


class AnswerCache:
    """Answers by the very objects they are about; it belongs to one snapshot and is thrown away with it.

    The key is the identity of the three objects and not what they hold. An entry keeps them, so that while it is there no
    other object can have their identity.
    """

    __slots__ = ("_answers",)

    def __init__(self, capacity: int = 8_192) -> None:
        """Remember at most `capacity` answers: at 2 KB each, with the token they keep, less than 20 MB."""
        self._answers: BoundedCache[_Key, tuple[Allow, _Parties]] = BoundedCache(capacity)

    def get(self, rule: CompiledRule, peer: Peer | None, token: VerifiedToken | None) -> Allow | None:
        """The answer of `rule` to these two, or None when it is not known."""
        # an answer is right for as long as its parties are the ones of the request: it has no time of its own
        entry = self._answers.get((id(rule), id(peer), id(token)), 0.0)
        return None if entry is None else entry[0]

    def put(self, rule: CompiledRule, peer: Peer | None, token: VerifiedToken | None, answer: Allow) -> None:
        """Remember the answer of `rule` to these two; not for a rule whose answer depends on the request."""
        self._answers.put((id(rule), id(peer), id(token)), (answer, (rule, peer, token)), inf)

    def __len__(self) -> int:
        return len(self._answers)


def is_short(mutations: Mutations) -> bool:
    """Whether these changes are little enough to be kept for the next time."""
    headers = (*mutations.set_request_headers, *mutations.set_response_headers)
    return sum(len(value) for _, value in headers) <= LONGEST_CHARACTERS
