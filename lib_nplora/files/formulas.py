"""The delta weight of each kind of network, from the tensors that files hold of one module.

Each function takes the tensors by role, in float64, and the weight of the model's layer where the kind needs it. It
returns the delta, without alpha, in the layer's own shape (a convolution may come flattened to (out, in * kernel)).
Run on tensors without values ("meta") it tells the shape, or fails if the tensors do not fit each other.

Formulas as in LyCORIS 4 (arXiv 2309.14859), so that files of its trainers mean what they mean there.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]

MAGNITUDES = ("dora_scale", "magnitude")
"""Roles of a DoRA's magnitude, as LyCORIS and as PEFT have it."""


def loha(t: Tensors, _: Tensor | None) -> Tensor:
    """(w1_a w1_b) * (w2_a w2_b), entry by entry (FedPara, arXiv 2108.06098); of Tucker cores with t1 and t2."""
    one, two = _hada_half(t, 1), _hada_half(t, 2)
    if one.shape != two.shape:
        raise ValueError(f"halves of shapes {tuple(one.shape)} and {tuple(two.shape)}")
    return one * two


def _hada_half(t: Tensors, half: int) -> Tensor:
    a, b, core = t[f"hada_w{half}_a"], t[f"hada_w{half}_b"], t.get(f"hada_t{half}")
    return _chain(a, b) if core is None else _tucker(core, a, b)


def lokr(t: Tensors, _: Tensor | None) -> Tensor:
    """kron(w1, w2), of which each may be a product of factors; with t2, w2 is a Tucker product."""
    w1 = t["lokr_w1"] if "lokr_w1" in t else t["lokr_w1_a"] @ t["lokr_w1_b"]
    if "lokr_w2" in t:
        w2 = t["lokr_w2"]
    elif "lokr_t2" in t:
        w2 = _tucker(t["lokr_t2"], t["lokr_w2_a"], t["lokr_w2_b"])
    else:
        w2 = _chain(t["lokr_w2_a"], t["lokr_w2_b"])
    # (a, b) x (c, d, ...) -> (a c, b d, ...), written out since `kron` wants equal numbers of axes.
    product = torch.einsum("ab,cd...->acbd...", w1, w2)
    return product.reshape(w1.shape[0] * w2.shape[0], w1.shape[1] * w2.shape[1], *w2.shape[2:])


def _chain(a: Tensor, b: Tensor) -> Tensor:
    """(out, r) (r, in, ...) -> (out, in, ...)."""
    return (a.flatten(1) @ b.flatten(1)).reshape(a.shape[0], *b.shape[1:])


def _tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """(i, j, ...), (i, out), (j, in) -> (out, in, ...)."""
    return torch.einsum("ij...,io,jn->on...", core, a.flatten(1), b.flatten(1))


def full(t: Tensors, _: Tensor | None) -> Tensor:
    """The delta itself."""
    return t["diff"]


def norm(t: Tensors, _: Tensor | None) -> Tensor:
    """The delta itself, a vector."""
    return t["norm"]


def replaced(t: Tensors, base: Tensor | None) -> Tensor:
    """The weight that takes the layer's place, minus the layer's."""
    assert base is not None
    return t["set"].reshape(base.shape) - base


def glora(t: Tensors, base: Tensor | None) -> Tensor:
    """W a1 a2 + b1 b2 (arXiv 2306.07967, the parts that LyCORIS trains); before LyCORIS 2, W a2 a1 + b2 b1."""
    assert base is not None
    a_up, a_down, b_up, b_down = glora_parts(t, base)
    if "glora_bm" in t:
        added = torch.einsum("mn...,om,ni->oi...", t["glora_bm"], b_up.flatten(1), b_down.flatten(1))
    else:
        added = _chain(b_up, b_down)
    return torch.einsum("oi...,ij,jk->ok...", base, a_up.flatten(1), a_down.flatten(1)) + added.reshape(base.shape)


def glora_parts(t: Tensors, base: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """a1, a2, b1, b2, in the order in which LyCORIS multiplies them since version 2."""
    a_up, a_down, b_up, b_down = (t[f"glora_{name}"] for name in ("a1", "a2", "b1", "b2"))
    return (a_up, a_down, b_up, b_down) if a_up.shape[0] == base.shape[1] else (a_down, a_up, b_down, b_up)


def ia3(t: Tensors, base: Tensor | None) -> Tensor:
    """W with its columns (on_input) or rows multiplied by the factor (arXiv 2205.05638; here the factor less 1)."""
    assert base is not None
    axis = 1 if float(t["on_input"]) else 0
    shape = [1] * base.dim()
    shape[axis] = base.shape[axis]
    return base * t["factor"].reshape(shape)


def oft(t: Tensors, base: Tensor | None) -> Tensor:
    """(R - 1) W with R block diagonal and orthogonal (arXiv 2306.07280), by Cayley's transform of each block."""
    assert base is not None
    r = t["oft_diag"] if "oft_diag" in t else _cayley(t["oft_blocks"], _limit(t, base))
    turned = torch.einsum("knm,kn...->km...", r, base.reshape(r.shape[0], r.shape[1], *base.shape[1:]))
    return _rescaled(turned.reshape(base.shape), t) - base


def boft(t: Tensors, base: Tensor | None) -> Tensor:
    """(R - 1) W with R a product of butterfly factors (arXiv 2311.06243); block i mixes rows 2^i b / 2 apart."""
    assert base is not None
    blocks = _cayley(t["oft_blocks"], _limit(t, base))
    turned, size, rest = base, blocks.shape[-1], base.shape[1:]
    for i, r in enumerate(blocks):
        apart = 2**i * size // 2
        paired = turned.reshape(-1, 2, apart, *rest).transpose(1, 2).reshape(-1, size, *rest)
        mixed = torch.einsum("bij,bj...->bi...", r, paired)
        turned = mixed.reshape(-1, apart, 2, *rest).transpose(1, 2).reshape(base.shape)
    return _rescaled(turned, t) - base


def _limit(t: Tensors, base: Tensor) -> float:
    """Constrained OFT keeps its limit, per row of the layer, in alpha."""
    return float(t["alpha"]) * base.shape[0] if "alpha" in t else 0.0


def _cayley(blocks: Tensor, limit: float) -> Tensor:
    """(1 + Q) (1 - Q)^-1 with Q = blocks - blocks^T, scaled down to the norm `limit` if that is not 0."""
    q = blocks - blocks.transpose(-1, -2)
    if limit > 0:
        q = q * (limit / (q.norm() + 1e-8)).clamp(max=1)
    one = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
    r: Tensor = (one + q) @ torch.linalg.inv(one - q)
    return r


def _rescaled(weight: Tensor, t: Tensors) -> Tensor:
    if "rescale" not in t:
        return weight
    return weight * t["rescale"].reshape(-1, *[1] * (weight.dim() - 1))


def decomposed(delta: Tensor, t: Tensors, base: Tensor) -> Tensor:
    """DoRA (arXiv 2402.09353, Eq. 5): m (W + delta) / |W + delta| - W.

    PEFT takes the norm of each row, LyCORIS that of each row or, with m of shape (1, in, ...), of each column.
    """
    weight = base + delta.reshape(base.shape)
    magnitude = t["magnitude"] if "magnitude" in t else t["dora_scale"]
    on_input = "magnitude" not in t and magnitude.dim() > 1 and magnitude.shape[0] == 1 != base.shape[0]
    axis = 1 if on_input else 0
    others = [i for i in range(weight.dim()) if i != axis]
    length: Tensor = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
    length = length.clamp(min=torch.finfo(torch.float32).eps)
    turned: Tensor = weight * (magnitude.reshape(length.shape) / length)
    return turned - base
