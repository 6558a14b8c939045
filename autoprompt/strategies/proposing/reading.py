"""The new text in what a model wrote. What it wrote is data: nothing of it is obeyed, and what cannot be read is empty."""

from __future__ import annotations

import re

from autoprompt.strategies.proposing.methods import CLOSE, OPEN

_THOUGHTS = re.compile(r"(?is)\A.*</think(?:ing)?>|<think(?:ing)?>.*")
"""All up to the last closing tag (the opening one may stand in what was read), and what is not closed."""
_FENCE = re.compile(r"(?m)^\s*```\w*\s*$|```")
_TAGS = re.compile("|".join(map(re.escape, (OPEN, CLOSE))), re.IGNORECASE)
_LIST_MARK = re.compile(r"^(?:[-*\u2022>#]+|\(?\d{1,2}[.)])\s+")
_LEAD = re.compile(
    r"(?i)^\**(?:(?:here is|here's|sure|certainly|okay)\b[^:\n]{0,60}"
    r"|(?:the |a |my )?(?:(?:new|better|improved|revised|final|rewritten) )?"
    r"(?:instruction|text|prompt|paraphrase|version|rewrite)(?: is| was)?)\**:\**\s*(?=\S)"
)
_QUOTES = {'"': '"', "\u201c": "\u201d", "'": "'", "\u2018": "\u2019", "`": "`", "\u00ab": "\u00bb"}


def proposed(written: str) -> str:
    """The text that was asked for, without list marks, leading words and quotes around it.

    That is what stands between the tags (the one that opens may have stood at the end of what was read), else the first
    line that is more than an announcement of the next.
    """
    text = _TAGS.sub(lambda tag: tag[0].lower(), _FENCE.sub("", _THOUGHTS.sub("", written)))
    opens, closes = text.find(OPEN), text.find(CLOSE)
    if closes >= 0 and not 0 <= opens < closes:
        return _bare(text[:closes])
    if 0 <= opens < closes:
        return _bare(text[opens + len(OPEN) : closes])
    lines = [line for line in text.replace(OPEN, "\n").splitlines() if _bare(line)]
    if opens >= 0:  # cut off before it was closed
        lines = [line for line in text[opens + len(OPEN) :].splitlines() if _bare(line)] or lines
    if len(lines) > 1 and lines[0].rstrip(" *").endswith(":"):
        lines = lines[1:]
    return _bare(lines[0]) if lines else ""


def _bare(text: str) -> str:
    before = None
    while text != before:
        before = text
        text = _unquoted(_LEAD.sub("", _LIST_MARK.sub("", text.strip())))
    return text


def _unquoted(text: str) -> str:
    """The inside of a text that is one quotation."""
    closing = _QUOTES.get(text[:1])
    if closing is None or len(text) < 2 or not text.endswith(closing):
        return text
    inside = text[1:-1]
    return text if closing in inside or text[0] in inside else inside
