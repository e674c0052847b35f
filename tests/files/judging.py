"""What we read or fuse against what a judge says, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lib_nplora.files import LoraFile, read_lora
from lib_nplora.maths.delta import Delta
from lib_nplora.maths.lowrank import LowRankDelta
from tests import reference

CLOSE = 1e-5
"""Relative Frobenius distance that a layer may be off."""

Matrices = Mapping[str, np.ndarray]
"""Delta weights by canonical name; `x.bias` is the bias of `x`."""


def opened(path: Path, base: Path | None = None) -> LoraFile:
    return read_lora(path, base)


def read(path: Path, base: Path | None = None) -> dict[str, np.ndarray]:
    """Every delta of a file."""
    return {str(key): matrix(delta) for key, delta in opened(path, base).weights.deltas.items()}


def matrix(delta: Delta) -> np.ndarray:
    """float64: products of factors must not be rounded on the way, or weak directions of theirs get lost."""
    if isinstance(delta, LowRankDelta):
        return (delta.up.double() @ delta.down.double()).numpy()
    return delta.dense().double().numpy()


def assert_close(title: str, found: Matrices, expected: Matrices) -> None:
    """The same layers, each CLOSE; prints the worst of them."""
    assert found.keys() == expected.keys()
    errors = {name: reference.error(found[name], expected[name]) for name in expected}
    worst = max(errors, key=errors.__getitem__)
    print(f"{title}: {errors[worst]:.1e} ({len(errors)} layers)")
    assert errors[worst] < CLOSE, (worst, errors[worst])
