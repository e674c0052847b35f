"""NP-LoRA as the paper writes it, in float64 and dense: the oracle for the factored maths.

Shares nothing with lib_nplora but the definitions: singular values below 2^-20 of the largest are noise, and those
within 1e-4 of each other at the cut stay together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

NOISE = 2.0**-20
TIE = 1e-4


def dense(up: torch.Tensor, down: torch.Tensor, mid: torch.Tensor | None = None, scale: float = 1.0) -> np.ndarray:
    """The delta weight, (out, in * kh * kw), of factors as a file holds them."""
    up64 = up.double().numpy().reshape(up.shape[0], -1)
    down64 = down.double().numpy()
    if mid is None:
        return scale * np.einsum("or,r...->o...", up64, down64).reshape(up.shape[0], -1)
    # A Tucker convolution is `down` (1 x 1), then `mid` (kh x kw), then `up` (1 x 1).
    down64 = down64.reshape(down.shape[0], -1)
    return scale * np.einsum("on,nmhw,mi->oihw", up64, mid.double().numpy(), down64).reshape(up.shape[0], -1)


def cut(s: np.ndarray, k: str) -> int:
    """How many of the singular values `s` are principal under rule `k`: all, a number, or a share."""
    numerical = int(np.count_nonzero(s > s[0] * NOISE)) if s.size and s[0] > 0 else 0
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


def basis(styles: Sequence[np.ndarray], k: str = "all") -> np.ndarray:
    """V, (in, k): principal right singular vectors of the styles on top of each other."""
    _, s, vh = np.linalg.svd(np.concatenate(styles), full_matrices=False)
    return vh[: cut(s, k)].T


def projector(v: np.ndarray, mu: float) -> np.ndarray:
    """I - beta V V^T, (in, in)."""
    beta = 1.0 if math.isinf(mu) else mu / (1 + mu)
    return np.eye(v.shape[0]) - beta * v @ v.T


def fused(
    contents: Sequence[tuple[float, np.ndarray]], styles: Sequence[tuple[float, np.ndarray]], mu: float, k: str = "all"
) -> np.ndarray:
    """The fusion of (weight, delta) pairs."""
    p = projector(basis([delta for _, delta in styles], k), mu)
    return sum(w * delta for w, delta in styles) + sum(w * delta @ p for w, delta in contents)


def error(actual: torch.Tensor | np.ndarray, expected: np.ndarray) -> float:
    """Relative Frobenius distance."""
    distance = float(np.linalg.norm(np.asarray(actual, dtype=np.float64) - expected))
    norm = float(np.linalg.norm(expected))
    return distance / norm if norm else distance
