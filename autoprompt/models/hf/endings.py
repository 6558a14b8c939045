"""Texts with answers after them as ids, without cutting each text up once more for every answer.

How an answer is cut into tokens depends on the last words of the text before it and on nothing earlier. So it is
seen once for each ending, on a real text, and put together from then on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from autoprompt.models.hf.encoded import common_start
from autoprompt.models.hf.tokens import Ids, Place, Tokens

_STRETCH = re.compile(r"\s+|\S+")
_STRETCHES, _CHARACTERS = 5, 200  # two words: a tokenizer may look at the spaces around the last one
_REMEMBERED = 8192
_Key = tuple[str, bool, str, str]


class Endings:
    """Remembers how answers go on after texts that end alike.

    Args:
        tokens: the tokenizer.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        # (tokens at the end of the text that merge with the answer, ids after them); None where the merge goes
        # back further than the ending, so that nothing is known of other texts
        self._known: dict[_Key, tuple[int, Ids] | None] = {}

    def wholes(self, asked: Sequence[tuple[Place, Ids, str]]) -> list[Ids]:
        """Ids of text and answer together, each asked for by its place, the text's own ids, and the answer."""
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        keys = [_key(place, word) for place, _, word in asked]
        new: dict[_Key, int] = {}
        for at, key in enumerate(keys):
            if key not in self._known:
                new.setdefault(key, at)
        seen = self._cut([asked[at] for at in new.values()])
        for (key, at), whole in zip(new.items(), seen, strict=True):
            context = asked[at][1]
            start = common_start(context, [whole])
            merged = len(context) - start
            self._known[key] = (merged, whole[start:]) if merged <= len(key[0]) else None
        far = [at for at, key in enumerate(keys) if self._known[key] is None]
        found = dict(zip(far, self._cut([asked[at] for at in far]), strict=True))
        for at, key in enumerate(keys):
            known = self._known[key]
            if known is not None:
                context = asked[at][1]
                found[at] = context[: len(context) - known[0]] + known[1]
        return [found[at] for at in range(len(asked))]

    def _cut(self, asked: Sequence[tuple[Place, Ids, str]]) -> list[Ids]:
        return self._tokens.open_ended([place.before + place.gap + word for place, _, word in asked])


def _key(place: Place, word: str) -> _Key:
    """The text's ending, whether it is all of the text, the spaces, and the answer."""
    stretches = _STRETCH.findall(place.before[-_CHARACTERS:])
    ending = "".join(stretches[-_STRETCHES:])
    return ending, len(ending) == len(place.before), place.gap, word
