"""The largest of numbers that are made piece by piece, of which there are too many to sort."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Largest:
    """The `k` largest of magnitudes that come in pieces. Holds a few times `k` of them, besides a piece."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._held: list[NDArray[np.float32]] = []
        self._count = 0
        self._least = -1.0
        """No number up to it belongs to the largest."""

    def add(self, magnitudes: Tensor) -> None:
        """A further piece: (n,) on the CPU, from 0."""
        piece = magnitudes.numpy()
        self._held.append(piece[piece > self._least])
        self._count += len(self._held[-1])
        if self._count > 4 * self._k:
            self._drop()

    def sum(self) -> float:
        """In float64; of all if there are fewer than `k`."""
        return float(self._drop().sum(dtype=np.float64))

    def _drop(self) -> NDArray[np.float32]:
        """Let go of all but the largest, and return those."""
        held = np.concatenate([np.empty(0, np.float32), *self._held])
        smaller = len(held) - self._k
        if smaller > 0:
            ordered = np.partition(held, smaller - 1)
            self._least, held = float(ordered[smaller - 1]), ordered[smaller:]
        self._held, self._count = [held], len(held)
        return held
