"""The kinds of network that have factors without being a LoRA, as these.

Each function takes what those of formulas.py take, and returns exact factors of the same delta, (out, rank) and
(rank, in), a convolution flattened to (out, in * kernel); None if it knows none. On tensors without values ("meta") it
tells the rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..maths.products import Factors, entrywise, kronecker, least, trivial
from .formulas import Tensors, glora_parts


def loha(t: Tensors, _: Tensor | None) -> Factors:
    """The rows' and the columns' Kronecker products of its halves' factors, of rank r1 r2."""
    one, two = (_chained(t, f"hada_w{half}", f"hada_t{half}") for half in (1, 2))
    return entrywise(one, two)


def lokr(t: Tensors, _: Tensor | None) -> Factors:
    """kron(w1, w2a w2b) = kron(w1, w2a) kron(1, w2b), or kron(1, w2a) kron(w1, w2b) if w1 is wide; and so on."""
    one, two = (
        trivial(t[half].flatten(1)) if half in t else least(*_chained(t, half, f"lokr_t{number}"))
        for number, half in enumerate(("lokr_w1", "lokr_w2"), 1)
    )
    return kronecker(one, two)


def glora(t: Tensors, base: Tensor | None) -> Factors | None:
    """[W a1, b1] [a2; b2], of a linear layer."""
    assert base is not None
    if base.dim() > 2:
        return None
    a_up, a_down, b_up, b_down = glora_parts(t, base)
    return torch.cat([base @ a_up, b_up], 1), torch.cat([a_down, b_down])


def _chained(t: Tensors, half: str, core: str) -> Factors:
    """A half of the delta that is a product; a Tucker core, (i, j, ...), goes into its second factor."""
    a, b = t[f"{half}_a"].flatten(1), t[f"{half}_b"].flatten(1)
    return (a, b) if core not in t else (a.T, torch.einsum("ij...,jn->in...", t[core], b).flatten(1))
