"""The update of each kind of network, by its formula, as the hosts calculate it: on one weight, in its own dtype."""

from __future__ import annotations

import torch
from torch import Tensor


def lora(up, down, mid=None) -> Tensor:
    down = down.flatten(1)
    if mid is not None:
        down = torch.einsum("nm...,mj->nj...", mid, down).flatten(1)
    return up.flatten(1) @ down


def loha(w1a, w1b, w2a, w2b, t1=None, t2=None) -> Tensor:
    if t1 is not None:
        first, second = (torch.einsum("ij...,ip,jr->pr...", t, a, b) for t, a, b in ((t1, w1a, w1b), (t2, w2a, w2b)))
        return first * second
    return (w1a @ w1b) * (w2a @ w2b)


def lokr(w1, w2) -> Tensor:
    return torch.kron(w1[..., None, None] if w2.dim() == 4 else w1, w2)


def glora(weight, a1, a2, b1, b2) -> Tensor:
    return b2 @ b1 + weight @ a2 @ a1


def ia3(weight, w, on_input) -> Tensor:
    return weight * (w if on_input else w[:, None])


def oft(weight, blocks) -> Tensor:
    """R is the Cayley transform of a skew matrix; the hosts invert in float32 whatever the rest is in."""
    eye = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
    skew = blocks - blocks.transpose(-1, -2)
    rotation = (eye + skew) @ (eye - skew).float().inverse()
    parts = weight.unflatten(0, blocks.shape[:2])
    return torch.einsum("knm,kn...->km...", rotation, parts).flatten(0, 1) - weight


def dora(weight, update, magnitude, of_sum_only: bool) -> Tensor:
    """A magnitude for each input channel takes the norm of W + dW. For each output channel, Forge takes that of W."""
    total = weight + update
    if magnitude.shape[0] == weight.shape[0] and not of_sum_only:
        norm = weight.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.dim() - 1))
    else:
        norm = total.transpose(0, 1).flatten(1).norm(dim=1).reshape(1, -1, *[1] * (weight.dim() - 2))
    return total * (magnitude / norm) - weight
