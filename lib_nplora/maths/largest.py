"""The largest of numbers that are made piece by piece, of which there are too many to sort."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


class Largest:
    """The `k` largest of `n` magnitudes that come in pieces. Holds a few times `k` of them, besides a piece.

    hasty
        Pass over what is hardly among them, by a guess from the first piece.
    """

    def __init__(self, k: int, n: int, hasty: bool = False) -> None:
        self._k = k
        self._n = n
        self._hasty = hasty
        self._held: list[NDArray[np.float32]] = []
        self._count = 0
        self._least = -1.0
        """No number up to it belongs to the largest."""

    def add(self, piece: NDArray[np.float32]) -> None:
        """Some more magnitudes, (n,), from 0."""
        if self._hasty and not self._held:
            self._least = self._likely_least(piece)
        larger = piece[piece > self._least]
        self._held.append(larger)
        self._count += larger.size
        if self._count > 4 * self._k:
            self._drop()

    def sum(self) -> float | None:
        """In float64, of all `n` if they are fewer than `k`; None if haste has passed over some of them."""
        held = self._drop()
        if self._hasty and len(held) < min(self._k, self._n):
            return None
        return float(held.sum(dtype=np.float64))

    def _likely_least(self, piece: NDArray[np.float32]) -> float:
        """What all of the largest exceed, if the piece holds at most twice its share and four standard deviations."""
        share = self._k * len(piece) / self._n
        rank = math.ceil(2 * share + 4 * math.sqrt(share)) + 1
        if rank >= len(piece):
            return -1.0
        return float(np.nextafter(np.partition(piece, -rank)[-rank], np.float32(-1)))

    def _drop(self) -> NDArray[np.float32]:
        """Let go of all but the largest, and return those."""
        held = np.concatenate([np.empty(0, np.float32), *self._held])
        smaller = len(held) - self._k
        if smaller > 0:
            ordered = np.partition(held, smaller - 1)
            self._least, held = float(ordered[smaller - 1]), ordered[smaller:]
        self._held, self._count = [held], len(held)
        return held
