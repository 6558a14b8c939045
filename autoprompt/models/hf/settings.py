"""What a user can set on a Hugging Face model.

Imports no torch, so that it can be checked before anything is loaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from autoprompt.errors import InputError, UnknownName, nearest

_FLAGS = ("chat", "allow_bin", "tree")
_COUNTS = ("max_length", "batch_tokens")
_DTYPES = ("float32", "bfloat16", "float16")
_DEVICE = re.compile(r"cpu|mps|cuda(?::\d+)?")
_TEXTS = ("dtype", "device", "revision")
OPTIONS = (*_FLAGS, *_COUNTS, *_TEXTS)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of a Hugging Face model; the query behind its name (``gpt2?chat&max_length=512``).

    Attributes:
        chat: wrap the text before the answer into the model's chat template as one user message.
        max_length: tokens the model may read; None: what the model and its tokenizer allow.
        dtype: ``float32``, ``bfloat16`` or ``float16``; None: ``float32`` on a CPU, ``bfloat16`` on an accelerator.
            Probabilities are taken in float32 all the same.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; None: ``cuda`` where there is one, else ``cpu``.
        revision: branch, tag or commit of a hub model.
        batch_tokens: padded tokens per forward; None: 1,024 on a CPU, 16,384 on an accelerator.
        tree: whether what texts begin with in common is run once, where the model's family allows it; the answers
            are the same.
        allow_bin: whether weights in pickle format may be read where there are no safetensors.
    """

    chat: bool = False
    max_length: int | None = None
    dtype: str | None = None
    device: str | None = None
    revision: str | None = None
    batch_tokens: int | None = None
    tree: bool = True
    allow_bin: bool = False

    def __post_init__(self) -> None:
        for name, value in (("max_length", self.max_length), ("batch_tokens", self.batch_tokens)):
            if value is not None and value < 1:
                raise InputError(f"model: {name} must be at least 1 (got {value})")
        if self.dtype is not None and self.dtype not in _DTYPES:
            raise UnknownName(
                f"model: no dtype {self.dtype!r}{nearest(self.dtype, _DTYPES)}; dtypes: {', '.join(_DTYPES)}"
            )
        if self.device is not None and not _DEVICE.fullmatch(self.device):
            raise InputError(f"model: device must be cpu, cuda, cuda:N or mps (got {self.device!r})")

    @classmethod
    def parse(cls, query: str, *, where: str) -> Settings:
        """Read a query such as ``chat&max_length=512``.

        Args:
            query: options joined by ``&``; a flag needs no value.
            where: the whole name, for errors.

        Raises:
            UnknownName: an option that does not exist.
            InputError: an option twice, or with a value that is not allowed.
        """
        given: dict[str, str] = {}
        for key, value in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
            if key not in OPTIONS:
                raise UnknownName(
                    f"model {where!r}: no option {key!r}{nearest(key, OPTIONS)}; "
                    f"options: {', '.join(OPTIONS)}"
                )
            if key in given:
                raise InputError(f"model {where!r}: option {key!r} is given twice")
            given[key] = unquote(value)
        return cls(
            chat=_flag(given, "chat", where),
            allow_bin=_flag(given, "allow_bin", where),
            tree=_flag(given, "tree", where, default=True),
            max_length=_count(given, "max_length", where),
            batch_tokens=_count(given, "batch_tokens", where),
            dtype=_text(given, "dtype", where),
            device=_text(given, "device", where),
            revision=_text(given, "revision", where),
        )


def _flag(given: dict[str, str], name: str, where: str, *, default: bool = False) -> bool:
    value = given.get(name, str(default)).lower()
    if value not in ("", "true", "false"):
        raise InputError(f"model {where!r}: {name} is a flag: write {name} or {name}=false (got {value!r})")
    return value != "false"


def _count(given: dict[str, str], name: str, where: str) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]+", value):
        raise InputError(f"model {where!r}: {name} must be a whole number of tokens (got {value!r})")
    return int(value)


def _text(given: dict[str, str], name: str, where: str) -> str | None:
    value = given.get(name)
    if value == "":
        raise InputError(f"model {where!r}: {name} needs a value, such as {name}=...")
    return value
