"""How the words of a prompt read where they stand: their perplexity under the model that is prompted, or another one."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

from autoprompt.asks import Answer, Ask, Fluency, Fluent
from autoprompt.errors import TemplateError
from autoprompt.prompt import Prompt
from autoprompt.strategies import Setting
from autoprompt.triggers import soft_space


def framed(setting: Setting, prompt: Prompt) -> Prompt:
    """The prompt with every stretch of its own words as a token slot.

    Raises:
        TemplateError: it has no words of its own, or its template has loops.
    """
    space = setting.space
    assert space.task is not None
    return soft_space(space.task, prompt).bind(space.task, answer_at_end=space.answer_at_end).default()


def perplexities(
    setting: Setting, prompts: Sequence[Prompt], examples: int, judge: str
) -> Generator[Sequence[Ask], Sequence[Answer], tuple[list[float], str]]:
    """Perplexity of each prompt's own words (1 where it has none, NaN where it cannot be told), and why the last one that is
    missing is.

    Args:
        setting: whose training examples the words stand around.
        prompts: the prompts.
        examples: training examples that each is read with.
        judge: the model that judges; empty: the one that is prompted.
    """
    found = dict.fromkeys(range(len(prompts)), 1.0)
    asks: dict[int, Fluency] = {}
    problem = ""
    for place, prompt in enumerate(prompts):
        try:
            whole = framed(setting, prompt)
        except TemplateError:
            if "{%" in prompt.text or "{#" in prompt.text:
                found[place], problem = math.nan, "a prompt with loops, conditions or comments cannot be read"
            continue
        asks[place] = Fluency(whole, setting.train[:examples], judge=judge, note="how it reads")
    answers = (yield list(asks.values())) if asks else ()
    for place, answer in zip(asks, answers, strict=True):
        assert isinstance(answer, Fluent)
        found[place] = answer.perplexity
        problem = answer.problem or problem
    return list(found.values()), problem
