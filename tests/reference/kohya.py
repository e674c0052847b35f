"""Whole files in kohya's spelling: their deltas, read without any code of ours, and what methods make of a pair.

Results are factors again, for the models that the files are made for may be large.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from . import balance
from .k_lora import scale, top_k_sum
from .matrices import Factors, added
from .np_lora import strength


def factors(path: Path) -> dict[str, Factors]:
    """Layer -> the update that a file holds. Without an alpha it is its rank."""
    tensors = {name: tensor.double().numpy() for name, tensor in load_file(path).items()}
    result = {}
    for name in tensors:
        base, dot, _ = name.partition(".lora_down.weight")
        if dot:
            down = tensors[name].reshape(len(tensors[name]), -1)
            up = tensors[f"{base}.lora_up.weight"].reshape(-1, len(down))
            scale = tensors[f"{base}.alpha"].item() / len(down) if f"{base}.alpha" in tensors else 1.0
            if f"{base}.lora_mid.weight" in tensors:
                mid = tensors[f"{base}.lora_mid.weight"]
                down = np.tensordot(mid, down, axes=(1, 0)).transpose(0, 3, 1, 2).reshape(len(mid), -1)
            result[base] = up * scale, down
    return result


def deltas(path: Path) -> dict[str, np.ndarray]:
    """Layer -> the update as a matrix."""
    return {name: up @ down for name, (up, down) in factors(path).items()}


def fused(
    content: Path,
    style: Path,
    mu: float,
    *,
    c: float = 1.0,
    s: float = 1.0,
    te: float = 1.0,
    unet: float = 1.0,
    k: int | None = None,
) -> dict[str, Factors]:
    """What `<nplora:content:style:mu:...>` means: dW_s + dW_c (I - beta V V^T), NP-LoRA Eq. 26-28."""
    contents, styles = factors(content), factors(style)
    result = {}
    for name in {**contents, **styles}:
        weight = te if name.startswith("lora_te") else unet
        if name in contents and name in styles:
            result[name] = projected(contents[name], styles[name], mu, c * weight, s * weight, k)
        else:
            (up, down), own = (contents[name], c) if name in contents else (styles[name], s)
            result[name] = own * weight * up, down
    return result


def projected(content: Factors, style: Factors, mu: float, c: float, s: float, k: int | None = None) -> Factors:
    """s dW_s + c dW_c (I - beta V V^T) of one layer."""
    (up_c, down_c), (up_s, down_s) = content, style
    q, r = np.linalg.qr(down_s.T)
    _, _, vt = np.linalg.svd(up_s @ r.T, full_matrices=False)
    v = (q @ vt.T)[:, :k]
    return added((s * up_s, down_s), (c * up_c, down_c - strength(mu) * (down_c @ v) @ v.T))


def norm(delta: Factors) -> float:
    """Frobenius norm of up @ down."""
    up, down = delta
    return float(np.sqrt(((up.T @ up) * (down @ down.T)).sum()))


def balanced(content: Path, style: Path, mode: str, mu: float) -> dict[str, Factors]:
    """What `<nplora:content:style:mu:balance=mode>` means, of two LoRAs that hold the same layers."""
    contents, styles = factors(content), factors(style)
    assert contents.keys() == styles.keys()
    norms = [(norm(contents[name]), norm(styles[name])) for name in contents]
    result = {}
    for name, (c, s) in zip(contents, balance.of_norms(mode, norms)):
        result[name] = projected(contents[name], styles[name], mu, c, s)
    return result


def content_inside_style(measured: np.ndarray, content: Factors, style: Factors) -> float:
    """Share of the content's energy that a fused delta (out, in) still has inside the style's subspace V."""
    style_dense = style[0] @ style[1]
    q, _ = np.linalg.qr(style[1].T)
    return float(np.square((measured - style_dense) @ q).sum() / np.square(content[0] @ content[1]).sum())


def output_side(content: Path, style: Path, mu: float) -> dict[str, Factors]:
    """What method=uspace means: dW_s + (I - beta U U^T) dW_c, U the left singular vectors of dW_s."""
    contents, styles = factors(content), factors(style)
    beta = strength(mu)
    result = {}
    for name, (up_c, down_c) in contents.items():
        up_s, down_s = styles[name]
        u, _ = np.linalg.qr(up_s)
        result[name] = added((up_s, down_s), (up_c - beta * u @ (u.T @ up_c), down_c))
    return result


def is_attention(name: str) -> bool:
    """Whether a layer of the diffusion model belongs to an attention, by its kohya name."""
    return name.startswith("lora_unet") and ("_attn1_to_" in name or "_attn2_to_" in name)


def winners(
    content: Path, style: Path, method: str, steps: int, *, alpha: float = 1.5, beta: float | None = None
) -> dict[str, str]:
    """Who wins which attention layer, `c` or `s` for each step: arXiv 2502.18461, Eq. 1-12.

    As in k_lora, but with sums made once.
    """
    contents, styles = factors(content), factors(style)
    meeting = {name: (contents[name], styles[name]) for name in contents if name in styles and is_attention(name)}
    return letters(meeting, method, steps, alpha=alpha, beta=beta)


def letters(
    meeting: Mapping[str, tuple[Factors, Factors]],
    method: str,
    steps: int,
    *,
    alpha: float = 1.5,
    beta: float | None = None,
) -> dict[str, str]:
    """The same of layers, or rows of layers, of which each side holds these updates."""
    beta = {"klora": 0.5, "klora*": 1.3, "fixed": 0.5}.get(method) if beta is None else beta
    sums, totals = {}, np.zeros(2)
    for name, sides in meeting.items():
        k = sides[0][1].shape[0] * sides[1][1].shape[0]
        sums[name], overall = np.transpose([_magnitudes(side, k) for side in sides])
        totals += overall
    gamma = totals[0] / totals[1]
    result = dict.fromkeys(meeting, "")
    for t in range(steps):
        s = scale(t, steps, alpha, beta, star=method == "klora*")
        for name, (content_sum, style_sum) in sums.items():
            content_wins = s <= 1 if method == "fixed" else content_sum >= style_sum * gamma * s
            result[name] += "c" if content_wins else "s"
    return result


ROWS = 2048


def _magnitudes(update: Factors, k: int) -> tuple[float, float]:
    """The sum of the k largest magnitudes of a layer, and that of all, from some rows at a time."""
    up, down = update
    largest, total = np.zeros(0), 0.0
    for first in range(0, len(up), ROWS):
        rows = np.abs(up[first : first + ROWS] @ down).ravel()
        total += float(rows.sum())
        largest = np.concatenate([largest, np.partition(rows, max(rows.size - k, 0))[-k:]])
    return top_k_sum(largest, k), total
