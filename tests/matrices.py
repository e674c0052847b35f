"""Random LoRA factors of every condition, drawn from a seed."""

from __future__ import annotations

import torch
from torch import Tensor

from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.lowrank import LowRankDelta

KEY = ModuleKey("layer", "unet")


def randn(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def orthonormal(rows: int, columns: int, seed: int) -> Tensor:
    """(rows, columns) float64 with orthonormal columns."""
    return torch.linalg.qr(randn(rows, columns, seed=seed).double()).Q


def with_spectrum(out: int, in_: int, s: list[float], seed: int) -> tuple[Tensor, Tensor]:
    """Factors (up, down) of a delta with singular values `s`, each side mixed by a random well-conditioned matrix."""
    rank = len(s)
    mix = orthonormal(rank, rank, seed + 2)
    root = torch.tensor(s, dtype=torch.float64).sqrt()
    up = orthonormal(out, rank, seed) * root @ mix
    return up.float(), (mix.T @ (orthonormal(in_, rank, seed + 1) * root).T).float()


def random_delta(out: int, in_: int, rank: int, seed: int, scale: float = 1.0) -> LowRankDelta:
    return LowRankDelta(randn(out, rank, seed=seed, scale=scale), randn(rank, in_, seed=seed + 1))


def lora(name: str, *deltas: LowRankDelta) -> LoraWeights:
    """A LoRA whose layers are `deltas`, under keys of their position; the first under KEY."""
    keys = [KEY, *(ModuleKey(f"layer{i}", "unet") for i in range(1, len(deltas)))]
    return LoraWeights(name, f"digest of {name}", dict(zip(keys, deltas)))
