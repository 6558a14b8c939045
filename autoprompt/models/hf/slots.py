"""Which tokens of a text belong to its slots.

The whole text is cut into tokens at once, as it is scored, and a slot is the tokens whose characters lie in
its piece. Cut up on its own a slot's text would often give other tokens than where it stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from autoprompt.errors import MissingCapability, TemplateError
from autoprompt.models import Kind
from autoprompt.models.hf.encoded import Encoded
from autoprompt.models.hf.tokens import Ids, Tokens
from autoprompt.prompt import Piece, Rendered

_MESSAGE = "\ufdd0message\ufdd0"  # stands for a chat message to see where the chat template puts it
Span = tuple[int, int]


@dataclass(frozen=True)
class SlotTokens:
    """``at``: positions of a slot's tokens in the ids of its text, in order; ``ids``: those tokens."""

    at: tuple[int, ...]
    ids: Ids


@dataclass(frozen=True)
class SlottedText:
    """A text as ids, special tokens included, and its slots by name."""

    ids: Ids
    slots: Mapping[str, SlotTokens]


@dataclass(frozen=True)
class Slotted:
    """A request as ids.

    Attributes:
        encoded: the rows, and where the answers are read.
        at: [L] positions of the slots' tokens, slot after slot; in the source where there is one.
        right: the right answers.
        among_answers: whether their probability is among the answers.
        first: number of the row that stands at the first of them; the others follow it.
        ended: whether the loss is a token's.
    """

    encoded: Encoded
    at: tuple[int, ...]
    right: tuple[int, ...] = ()
    among_answers: bool = False
    first: int = 0
    ended: bool = False


@dataclass(frozen=True)
class Batch:
    """What is run together. At the slots' places stand the ids of rows (see ``InputTable.spliced``).

    Attributes:
        rows: [R] what the (decoder) model reads.
        sources: [S] what the encoder of an encoder-decoder model reads, each once; else empty.
        source_of: [R] which source each row goes with; empty without sources.
        places: [n] (row, position) where logits are read.
    """

    rows: tuple[Ids, ...]
    sources: tuple[Ids, ...]
    source_of: tuple[int, ...]
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Cut:
    """A text cut into tokens.

    Attributes:
        text: as the model reads it.
        regions: the characters of each slot.
        ids: its tokens, special ones included.
        spans: the characters each covers.
    """

    text: str
    regions: Mapping[str, Span]
    ids: Ids
    spans: Sequence[Span]


class SlotFinder:
    """Finds slots in the text a model reads.

    Args:
        tokens: the tokenizer.
        kind: how the model reads. A masked one reads the whole text, the mask in it; the others read up to
            the answer place.
        name: the model's name, for errors.
    """

    def __init__(self, tokens: Tokens, kind: Kind, *, name: str) -> None:
        self._tokens = tokens
        self._mask = str(tokens.tokenizer.mask_token) if kind == "masked" else None
        self._kind = kind
        self._name = name

    def require_offsets(self) -> None:
        """See that the tokenizer says which characters a token covers.

        Raises:
            MissingCapability: it does not.
        """
        if not self._tokens.tokenizer.is_fast:
            raise MissingCapability(
                f"model {self._name!r}: its tokenizer does not say which characters a token covers, so the "
                "tokens of a slot cannot be found",
                hint="load the fast tokenizer (AutoTokenizer.from_pretrained, with a tokenizer.json), or use "
                "a strategy that needs no gradients",
            )

    def find(self, rendered: Sequence[Rendered]) -> list[SlottedText]:
        """The tokens of every slot in every text.

        Raises:
            MissingCapability: the tokenizer does not say which characters a token covers.
            TemplateError: a text has no slot, one that the model does not read or that stands twice, or a
                slot that is not a whole number of tokens.
        """
        return [self._slotted(cut) for cut in self._cut(rendered)]

    def find_whole(self, rendered: Sequence[Rendered]) -> list[SlottedText | None]:
        """As ``find``, but None for a text with a slot that is not a whole number of tokens.

        Raises:
            MissingCapability: the tokenizer does not say which characters a token covers.
            TemplateError: a text has no slot, one that the model does not read or that stands twice.
        """
        found: list[SlottedText | None] = []
        for cut in self._cut(rendered):
            try:
                found.append(self._slotted(cut))
            except TemplateError:
                found.append(None)
        return found

    def _cut(self, rendered: Sequence[Rendered]) -> list[_Cut]:
        """All texts as ids, with the characters each covers."""
        self.require_offsets()
        read = [self._text(each) for each in rendered]
        if not read:
            return []
        encoded = self._tokens.tokenizer(
            [text for text, _ in read],
            add_special_tokens=not self._tokens.chat,
            return_offsets_mapping=True,
            padding=False,
            truncation=False,
            verbose=False,
        )
        return [
            _Cut(text, regions, tuple(ids), spans)
            for (text, regions), ids, spans in zip(
                read, encoded["input_ids"], encoded["offset_mapping"], strict=True
            )
        ]

    def _text(self, rendered: Rendered) -> tuple[str, dict[str, Span]]:
        """The text as the model reads it, and the characters of each slot in it."""
        place = self._tokens.place(rendered)
        text, opening = place.before, 0
        if self._tokens.chat:
            opening = self._message_start(rendered, place.before)
        regions = _regions(rendered.before, opening)
        later = _regions(rendered.after, 0)
        if self._mask is not None:
            text += place.gap + self._mask
            later = {name: (a + len(text), b + len(text)) for name, (a, b) in later.items()}
            text += place.after
        elif later:
            raise TemplateError(
                f"slot {next(iter(later))!r} stands after {{{{ answer }}}}, where a {self._kind} model does not "
                "read",
                hint="move the slot before {{ answer }}, or use a masked model",
            )
        for name in regions.keys() & later.keys():
            raise _twice(name)
        regions |= later
        if not regions:
            raise TemplateError(
                "prompt: there is no slot in this text to take a gradient by",
                hint="render the prompt so that the pieces of its token slots bear their names",
            )
        return text, regions

    def _message_start(self, rendered: Rendered, before: str) -> int:
        """Where in the chat text the message would start, had the template cut no spaces off its front."""
        message = "".join(piece.text for piece in rendered.before).rstrip()
        start = self._tokens.place(Rendered((Piece(_MESSAGE),))).before.find(_MESSAGE)
        for cut in (0, len(message) - len(message.lstrip())):
            if start >= 0 and before.startswith(message[cut:], start):
                return start - cut
        raise TemplateError(
            f"model {self._name!r}: its chat template rewrites the message, so that the slots in it cannot be "
            "found",
            hint="leave ?chat out",
        )

    def _slotted(self, cut: _Cut) -> SlottedText:
        text, ids = cut.text, cut.ids
        slots = {}
        for name, region in cut.regions.items():
            inside = [
                at
                for at, span in enumerate(cut.spans)
                if span[0] < region[1] and region[0] < span[1]  # else it need not be looked at closely
                and self._belongs(name, text, region, span, ids[at])
            ]  # fmt: skip
            if not inside:
                raise TemplateError(
                    f"slot {name!r}: its text {text[region[0] : region[1]]!r} is no token of its own here",
                    hint="give the slot a text of at least one token",
                )
            # a byte or a space between two tokens of the slot may cover no character; it lies in it all the same
            at = tuple(range(inside[0], inside[-1] + 1))
            slots[name] = SlotTokens(at, tuple(ids[each] for each in at))
        return SlottedText(ids, slots)

    def _belongs(self, name: str, text: str, region: Span, span: Span, token: int) -> bool:
        """Whether a token lies in a slot. Spaces it takes along count only where it holds nothing else."""
        start, end = _core(text, span)
        if max(start, region[0]) >= min(end, region[1]):
            return False
        if region[0] <= start and end <= region[1]:
            return True
        shown = self._tokens.tokenizer.convert_ids_to_tokens(token)
        raise TemplateError(
            f"slot {name!r}: the token {shown!r} of {self._name!r} covers {text[span[0] : span[1]]!r}, which is "
            f"only partly the slot's text {text[region[0] : region[1]]!r}",
            hint="put a space between the slot and what stands beside it, or choose another text for it",
        )


def shared_ids(found: Sequence[SlottedText]) -> dict[str, Ids]:
    """The ids of every slot, the same in all texts.

    Raises:
        TemplateError: the texts have other slots, or other tokens in one of them.
    """
    first = {name: slot.ids for name, slot in found[0].slots.items()}
    for text in found:
        if text.slots.keys() != first.keys():
            odd = sorted(text.slots.keys() ^ first.keys())
            raise TemplateError(
                f"slot {odd[0]!r} stands in some of the texts but not in all",
                hint="ask for gradients of one prompt at a time",
            )
        for name, slot in text.slots.items():
            if slot.ids != first[name]:
                raise TemplateError(
                    f"slot {name!r} is read as other tokens in another text (ids {list(first[name])} and "
                    f"{list(slot.ids)}), so there is no one gradient by them",
                    hint="keep the example's fields and the slot apart by a space, a line break or fixed text",
                )
    return first


def check_standing(text: SlottedText, encoded: Encoded, kind: Kind) -> None:
    """See that the slots' tokens stand in what is run as they were found in the text.

    What reads on from a text may cut its end up otherwise, together with an answer.

    Raises:
        TemplateError: they do not.
    """
    row = encoded.source or encoded.rows[0]
    for name, slot in text.slots.items():
        last = slot.at[-1]
        merged = kind == "causal" and any(last > read.start for read in encoded.reads)
        if merged or row[: last + 1] != text.ids[: last + 1]:
            raise TemplateError(
                f"slot {name!r}: its last token merges with an answer that follows it",
                hint="put a space, a line break or fixed text between the slot and {{ answer }}",
            )


def batch_of(part: Sequence[Slotted], size: int) -> Batch:
    """The rows of some requests, their sources each once, and every place in them that is read.

    Args:
        part: the requests.
        size: V, rows of the embedding table: from there on ids are of rows that are spliced in.
    """
    rows: list[Ids] = []
    source_of: list[int] = []
    places: list[tuple[int, int]] = []
    sources: dict[Ids, int] = {}
    for each in part:
        encoded = each.encoded.with_rows(each.at, size + each.first)
        for read in dict.fromkeys(place for place, _ in _reads(encoded)):
            places.append((len(rows) + read[0], read[1]))
        rows += encoded.rows
        if encoded.source:
            number = sources.setdefault(encoded.source, len(sources))
            source_of += [number] * len(encoded.rows)
    return Batch(tuple(rows), tuple(sources), tuple(source_of), tuple(places))


def _regions(pieces: Sequence[Piece], start: int) -> dict[str, Span]:
    """Slot name to the characters it takes up, counted from ``start``."""
    regions: dict[str, Span] = {}
    for piece in pieces:
        end = start + len(piece.text)
        if piece.slot in regions:
            raise _twice(piece.slot)
        if piece.slot:
            regions[piece.slot] = (start, end)
        start = end
    return regions


def _twice(name: str) -> TemplateError:
    return TemplateError(
        f"slot {name!r} stands in the text more than once; a slot whose tokens are tuned stands once",
        hint="use the slot once, or make it two slots",
    )


def _core(text: str, span: Span) -> Span:
    """The span without the white space at its ends; the whole of it where it is nothing else."""
    start, end = span
    covered = text[start:end]
    if not covered.strip():
        return span
    return start + len(covered) - len(covered.lstrip()), start + len(covered.rstrip())


def _reads(encoded: Encoded) -> Iterator[tuple[tuple[int, int], int]]:
    """Every ((row, position), target) of a request's answers."""
    for read in encoded.reads:
        for step, target in enumerate(read.targets):
            yield (read.row, read.start + step), target
