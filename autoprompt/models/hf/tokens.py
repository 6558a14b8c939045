"""From text to token ids: special tokens as the model was trained, the leading-space rule, shortening."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from autoprompt.errors import TemplateError
from autoprompt.models import LabelRequest, RankRequest, Request
from autoprompt.prompt import Piece, Rendered

Ids = tuple[int, ...]
_PROBES = ("a", "the", "1")


@dataclasses.dataclass(frozen=True)
class Place:
    """The text around an answer place, the leading-space rule applied.

    Attributes:
        before: the text before it without its trailing spaces.
        gap: those spaces; they move to the front of the answer.
        after: the text after it.
    """

    before: str
    gap: str
    after: str


class Tokens:
    """A tokenizer as the models here use it: never padding, never truncating, never changed."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, chat: bool = False) -> None:
        self.tokenizer = tokenizer
        self.chat = chat
        self._ones: dict[int, int] = {}
        self._lead, self._tail = self._affixes(target=False)
        # what a tokenizer adds to texts a decoder writes; most add there what they add anywhere
        self.target_lead, self._target_tail = self._affixes(target=True)

    def place(self, rendered: Rendered) -> Place:
        """The text around the answer place; in chat, what stands before it becomes the user's message."""
        text = "".join(piece.text for piece in rendered.before)
        if self.chat:
            text = self._as_chat(text.rstrip(" "))
        before = text.rstrip(" ")
        after = "".join(piece.text for piece in rendered.after)
        return Place(before, text[len(before) :], after)

    def whole(self, texts: Sequence[str]) -> list[Ids]:
        """Ids with all special tokens the tokenizer adds."""
        return self._ids(texts, special=not self.chat)

    def open_ended(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of texts that are read on from: leading special tokens, but no end-of-text."""
        tail = 0 if self.chat else self._tail
        return [ids[: len(ids) - tail] for ids in self.whole(texts)]

    def targets(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of texts a decoder writes: leading special tokens, but no end-of-text."""
        return [ids[: len(ids) - self._target_tail] for ids in self._ids(texts, special=True, target=True)]

    def bare(self, texts: Sequence[str]) -> list[Ids]:
        """Ids without any special tokens but those the texts spell out."""
        return self._ids(texts, special=False)

    def ends(self, text: str) -> list[int]:
        """Where the tokens of a text end, in characters.

        For tokenizers without offsets, where its words end.
        """
        if not self.tokenizer.is_fast:
            return [at + 1 for at in range(len(text)) if at + 1 == len(text) or text[at + 1] == " "]
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [int(end) for _, end in encoded["offset_mapping"]]

    def spans(self, text: str) -> list[tuple[int, tuple[int, int]]] | None:
        """Ids with the characters each covers, special tokens left out.

        None for tokenizers without offsets.
        """
        if not self.tokenizer.is_fast:
            return None
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        return str(
            self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def continuation(self, context: Sequence[int], new: Sequence[int]) -> str:
        """The text that ``new`` adds after ``context``.

        Decoded together, since a first space may hang on it.
        """
        tail = list(context[-16:])
        start, full = self.text(tail), self.text([*tail, *new])
        return full[len(start) :] if full.startswith(start) else self.text(new)

    def _as_chat(self, message: str) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": message}], add_generation_prompt=True, tokenize=False
            )
        )

    def _ids(self, texts: Sequence[str], *, special: bool, target: bool = False) -> list[Ids]:
        if not texts:
            return []
        given = list(texts)
        encoded = self.tokenizer(
            None if target else given,
            text_target=given if target else None,
            add_special_tokens=special,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        # a number once, however often it stands in the ids that are kept: a quarter of the memory
        one = self._ones.setdefault
        return [tuple(one(each, each) for each in ids) for ids in encoded["input_ids"]]

    def _affixes(self, *, target: bool) -> tuple[int, int]:
        """How many special tokens the tokenizer adds before and after a text."""
        for probe in _PROBES:
            (full,) = self._ids([probe], special=True, target=target)
            (bare,) = self._ids([probe], special=False, target=target)
            for lead in range(len(full) - len(bare) + 1):
                if bare and full[lead : lead + len(bare)] == bare:
                    return lead, len(full) - len(bare) - lead
        return 0, 0


def fit(
    rendered: Rendered, limit: int | None, measure: Callable[[Rendered], int], tokens: Tokens
) -> tuple[Rendered, int]:
    """Shorten the example's fields, the longest first and from their ends, until the request fits.

    Args:
        rendered: the prompt rendered for one example.
        limit: tokens that fit, None where unbounded.
        measure: how many tokens the request reads, answers included.
        tokens: the tokenizer.

    Returns:
        What is left, and how many tokens were cut.

    Raises:
        TemplateError: the prompt does not fit even with its fields empty.
    """
    full = measure(rendered)
    if limit is None or full <= limit:
        return rendered, 0
    pieces = (*rendered.before, *rendered.after)
    ends = [tokens.ends(piece.text) if piece.is_field else [] for piece in pieces]
    sizes = [len(each) for each in ends]
    empty = _cut(rendered, ends, 0)
    bare = measure(empty)
    if bare > limit:
        raise TemplateError(
            f"prompt: {bare} tokens with its fields empty (answer and special tokens included), but the "
            f"model reads at most {limit}",
            hint="shorten the prompt, use fewer demonstrations, or raise max_length if the model allows it",
        )
    room = sum(sizes) - (full - limit)
    while room > 0:
        shorter = _cut(rendered, ends, _level(sizes, room))
        length = measure(shorter)
        if length <= limit:
            return shorter, full - length
        room -= length - limit
    return empty, full - bare


def _level(sizes: Sequence[int], room: int) -> int:
    """The greatest cap with sum(min(size, cap)) <= room: cutting to it shortens the longest first."""
    cap, low, high = 0, 0, max(sizes, default=0)
    while low <= high:
        middle = (low + high) // 2
        if sum(min(size, middle) for size in sizes) <= room:
            cap, low = middle, middle + 1
        else:
            high = middle - 1
    return cap


def _cut(rendered: Rendered, ends: Sequence[Sequence[int]], cap: int) -> Rendered:
    """Fields cut to at most ``cap`` tokens each."""
    pieces = [
        Piece(piece.text[: end[cap - 1] if cap else 0], is_field=True) if len(end) > cap else piece
        for piece, end in zip((*rendered.before, *rendered.after), ends, strict=True)
    ]
    count = len(rendered.before)
    return Rendered(tuple(pieces[:count]), tuple(pieces[count:]))


def with_text(request: Request, rendered: Rendered) -> Request:
    """The same request about another text."""
    return dataclasses.replace(request, rendered=rendered)


def ranked_words(request: Request) -> tuple[str, ...] | None:
    """The words a rank request names; None for the whole vocabulary and for other requests."""
    return request.among if isinstance(request, RankRequest) else None


def answers_of(request: Request) -> tuple[str, ...]:
    """The answers a request asks to be scored."""
    if isinstance(request, LabelRequest):
        return request.answers
    return (request.target,) if isinstance(request, RankRequest) else ()
