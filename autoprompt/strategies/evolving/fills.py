"""Words that the model itself expects in place of a prompt's own: what a masked model fills in, and what a causal one
would go on with.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from autoprompt.asks import Answer, Ask, Fluency, Fluent
from autoprompt.errors import AutopromptError
from autoprompt.policy import TokenPolicy
from autoprompt.prompt import Prompt
from autoprompt.strategies import Setting
from autoprompt.strategies.evolving.reading import framed

LIKELY = 24
"""Likeliest tokens that are looked at, at each place."""


def fills(
    setting: Setting, prompt: Prompt, examples: int, count: int
) -> Generator[Sequence[Ask], Sequence[Answer], dict[str, list[str]]]:
    """Word (in lower case) to up to ``count`` others that the model expects in its place; nothing where it cannot say.

    Args:
        setting: whose vocabulary says which tokens are readable words.
        prompt: every token of its own words is looked at.
        examples: training examples whose texts it stands around.
        count: words in place of each.
    """
    space, vocabulary = setting.space, setting.vocabulary
    if space.task is None or vocabulary is None:
        return {}
    try:
        whole = framed(setting, prompt)
    except AutopromptError:  # loops in the template, say: its words are no slots
        return {}
    answers = tuple(word for words in prompt.words.values() for word in words)
    allowed = vocabulary.allowed(TokenPolicy(answers=answers))
    (answer,) = yield [Fluency(whole, setting.train[:examples], likely=LIKELY, note="what the model expects")]
    found: dict[str, list[str]] = {}
    if not isinstance(answer, Fluent) or answer.problem:
        return found
    for name, ids in answer.ids.items():
        for token, likely in zip(ids, answer.likely.get(name, ()), strict=False):
            if not allowed[token]:  # a part of a word, or no word at all
                continue
            word = vocabulary.text([token])
            others = [vocabulary.text([other]) for other in likely if allowed[other] and other != token]
            listed = found.setdefault(word.lower(), [])
            listed += [other for other in others if other.lower() not in (word.lower(), *listed)][
                : count - len(listed)
            ]
    return found
