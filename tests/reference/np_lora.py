"""NP-LoRA as the paper writes it, arXiv 2511.11051, dense.

Singular values below 2^-20 of the largest are noise, those within 1e-4 of each other at the cut stay together, and a
style without factors gives the fewest directions that hold all but a millionth of its energy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

NOISE = 2.0**-20
TIE = 1e-4
LOST = 1e-6


def cut(s: np.ndarray, k: str, lost: float = 0.0) -> int:
    """How many of the singular values `s` are principal under rule `k`: all, a number, or a share.

    `lost` is the share of the energy that is left out first.
    """
    s = np.asarray(s, dtype=np.float64)
    tail = np.cumsum(s[::-1] ** 2)[::-1]
    numerical = int(np.count_nonzero((s > s[0] * NOISE) & (tail > lost * tail[0]))) if s.size and s[0] > 0 else 0
    if k == "all" or numerical == 0:
        return numerical
    if k.endswith("%"):
        shares = np.cumsum(s[:numerical] ** 2) / np.sum(s[:numerical] ** 2)
        first = int(np.searchsorted(shares, float(k[:-1]) / 100)) + 1
    else:
        first = int(k)
    first = min(first, numerical)
    while first < numerical and s[first] >= s[first - 1] * (1 - TIE):
        first += 1
    return first


def basis(styles: Sequence[np.ndarray], k: str = "all", lost: float = 0.0) -> np.ndarray:
    """V, (in, k): principal right singular vectors of the styles on top of each other."""
    _, s, vh = np.linalg.svd(np.concatenate(styles), full_matrices=False)
    return vh[: cut(s, k, lost)].T


def strength(mu: float) -> float:
    """beta = mu / (1 + mu), Eq. 25."""
    return 1.0 if math.isinf(mu) else mu / (1 + mu)


def projector(v: np.ndarray, mu: float) -> np.ndarray:
    """I - beta V V^T, (in, in): Eq. 10 and 28."""
    return np.eye(v.shape[0]) - strength(mu) * v @ v.T


def fused_layer(content: np.ndarray, style: np.ndarray, v: np.ndarray, mu: float) -> np.ndarray:
    """dW_s + dW_c (I - beta V V^T), Eq. 26 on the input side."""
    return style + content @ projector(v, mu)


def fused(
    contents: Sequence[tuple[float, np.ndarray]], styles: Sequence[tuple[float, np.ndarray]], mu: float, k: str = "all"
) -> np.ndarray:
    """The fusion of (weight, delta) pairs."""
    v = basis([delta for _, delta in styles], k)
    return fused_layer(sum(w * delta for w, delta in contents), sum(w * delta for w, delta in styles), v, mu)


def inside(content: np.ndarray, style: np.ndarray) -> np.ndarray:
    """dW_c V V^T of a style without factors, by the eigenvectors of the smaller Gram matrix: models are large."""
    style = np.asarray(style, dtype=np.float64)
    wide = style.shape[0] < style.shape[1]
    energies, vectors = np.linalg.eigh(style @ style.T if wide else style.T @ style)
    kept = np.cumsum(energies) > LOST * energies.sum()
    v = style.T @ vectors[:, kept] / np.sqrt(energies[kept]) if wide else vectors[:, kept]
    return content @ v @ v.T
