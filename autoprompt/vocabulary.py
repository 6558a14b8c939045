"""The tokens of a model as a search over tokens sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from autoprompt.policy import TokenPolicy
from autoprompt.prompt import Rendered

Metric = Literal["cosine", "l2", "norm", "centred", "whitened"]
"""How near a row is to a token's embedding: by angle; by distance; by distance once it is as long as the tokens are in the
median; by angle from their mean; by distance where every direction counts in units of its own spread."""


class Vocabulary(Protocol):
    """The tokens a model reads: V rows of its input embeddings, more than its tokenizer has ids for where the
    table is padded.
    """

    @property
    def size(self) -> int:
        """V."""
        ...

    def allowed(self, policy: TokenPolicy) -> NDArray[np.bool_]:
        """[V] which tokens may stand in a slot; rows without a token of the tokenizer never may."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """The text of a slot that holds these tokens, without white space at its ends."""
        ...

    def read(self, rendered: Sequence[Rendered]) -> list[Mapping[str, tuple[int, ...]] | None]:
        """The tokens of every slot of every text, as the whole text is cut up; None where a slot is not a whole
        number of tokens of its own.
        """
        ...

    def distances(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """[L, V] Euclidean distances between the input embeddings of these tokens and of all."""
        ...

    def rows(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """[L, D] what the model reads for these tokens."""
        ...

    def nearest(
        self, rows: NDArray[np.float32], allowed: NDArray[np.bool_], count: int = 1, metric: Metric = "cosine"
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The tokens nearest to rows [L, D]: ids [L, K] and how near they are, the nearest first.

        Args:
            rows: as the model reads them.
            allowed: [V] which tokens count.
            count: K, no more than are allowed.
            metric: how near is judged; cosines are greater where they are nearer, distances smaller.
        """
        ...

    @property
    def unit(self) -> float:
        """r, the root mean square of the embeddings: what rows are measured in."""
        ...
