"""A character-level tokeniser: one id a character, and id 0 for every character it has never seen."""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from nanoq.progress import progress

UNKNOWN = "<unk>"
PART = 2**20  # characters that are read at once: copies of a large text would fill the memory


def _parts(text: str, doing: str) -> Iterator[tuple[int, str]]:
    """A text in parts, each with the place where it begins; a long one with a bar that says what is done."""
    starts = range(0, len(text), PART)
    if len(starts) > 1:
        starts = progress(starts, desc=doing, unit="part", leave=False, delay=1)
    return ((start, text[start : start + PART]) for start in starts)


class CharTokenizer:
    """Maps characters to ids 1..V-1 in the order of `characters`; id 0 is `<unk>`.

    Args:
        characters: the distinct characters of the vocabulary, without `<unk>`.

    Raises:
        ValueError: if an entry is not a single character or stands twice.
    """

    def __init__(self, characters: Iterable[str]):
        self.characters = list(characters)
        if any(len(c) != 1 for c in self.characters):
            raise ValueError("a character vocabulary holds single characters only")
        if len(set(self.characters)) != len(self.characters):
            raise ValueError("the vocabulary names a character twice")
        points = [ord(c) for c in self.characters]
        self._table = np.zeros(max(points, default=0) + 2, dtype=np.int64)  # code point -> id; the last entry stays 0
        self._table[points] = np.arange(1, len(points) + 1)
        self._text = [UNKNOWN, *self.characters]

    @classmethod
    def from_text(cls, text: str) -> "CharTokenizer":
        """The tokeniser of all characters in `text`, sorted by code point."""
        return cls(sorted(set().union(*(part for _, part in _parts(text, "vocabulary")))))

    @property
    def vocab_size(self) -> int:
        """Number of ids, `<unk>` included."""
        return len(self._text)

    def encode(self, text: str) -> Tensor:
        """Ids of `text`: int64 (T,). Unknown characters become id 0; count them with `unknown`."""
        ids = np.empty(len(text), dtype=np.int64)
        for start, part in _parts(text, "encode"):
            points = np.frombuffer(part.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
            ids[start : start + len(part)] = self._table[np.minimum(points, len(self._table) - 1)]
        return torch.from_numpy(ids)

    def decode(self, ids: Tensor | Iterable[int]) -> str:
        """The text of ids (T,); id 0 is written as `<unk>`."""
        return "".join(self._text[int(i)] for i in ids)

    def encode_known(self, text: str, name: str) -> Tensor:
        """Ids of `text`, as `encode`, for work that says nothing where the model does not know its characters.

        Raises:
            ValueError: if more than half of them are unknown, by the `name` of the text.
        """
        ids = self.encode(text)
        if (unknown := int((ids == 0).sum())) > len(ids) / 2:
            raise ValueError(f"{unknown:,} of {len(ids):,} characters of {name} are unknown to the model: give a text "
                             "in the alphabet that it was trained on")
        return ids

    def unknown(self, text: str) -> dict[str, int]:
        """How often each character outside the vocabulary stands in `text`."""
        counts = Counter(text)
        return {c: counts[c] for c in sorted(counts.keys() - set(self.characters))}
