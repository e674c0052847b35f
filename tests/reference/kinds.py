"""What each kind of network adds to a layer, by its makers' formulas.

A formula takes the tensors of a file by role, `__` for a dot, and the base weight in the layer's own shape.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Arrays = dict[str, np.ndarray]
Formula = Callable[[Arrays, np.ndarray], np.ndarray]


def flat(a: np.ndarray) -> np.ndarray:
    return a.reshape(a.shape[0], -1)


def loha(t: Arrays, _: np.ndarray) -> np.ndarray:
    return t["alpha"] / 2 * (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])


def loha_plain(t: Arrays, _: np.ndarray) -> np.ndarray:
    return (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])


def tucker(core: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(out, in, height, width), place by place of the kernel."""
    places = np.ndindex(core.shape[2:])
    return np.stack([a.T @ core[(slice(None), slice(None), *place)] @ b for place in places], axis=-1).reshape(
        a.shape[1], b.shape[1], *core.shape[2:]
    )


def loha_tucker(t: Arrays, _: np.ndarray) -> np.ndarray:
    one, two = (tucker(t[f"hada_t{n}"], t[f"hada_w{n}_a"], t[f"hada_w{n}_b"]) for n in (1, 2))
    return t["alpha"] / 2 * one * two


def lokr(t: Arrays, _: np.ndarray) -> np.ndarray:
    return np.kron(t["lokr_w1"], t["lokr_w2"])


def lokr_factors(t: Arrays, _: np.ndarray) -> np.ndarray:
    return t["alpha"] / 2 * np.kron(t["lokr_w1"], t["lokr_w2_a"] @ t["lokr_w2_b"])


def lokr_both(t: Arrays, _: np.ndarray) -> np.ndarray:
    return t["alpha"] * np.kron(t["lokr_w1_a"] @ t["lokr_w1_b"], t["lokr_w2_a"] @ t["lokr_w2_b"])


def lokr_kernel(t: Arrays, _: np.ndarray) -> np.ndarray:
    return np.stack([np.kron(t["lokr_w1"], t["lokr_w2"][..., i, j]) for i in range(3) for j in range(3)], axis=-1)


def lokr_tucker(t: Arrays, _: np.ndarray) -> np.ndarray:
    kernels = [t["lokr_w2_a"].T @ t["lokr_t2"][..., i, j] @ t["lokr_w2_b"] for i in range(3) for j in range(3)]
    return t["alpha"] / 2 * np.stack([np.kron(t["lokr_w1"], kernel) for kernel in kernels], axis=-1)


def full(t: Arrays, _: np.ndarray) -> np.ndarray:
    return t["diff"]


def replaced(t: Arrays, base: np.ndarray) -> np.ndarray:
    return t["set_weight"] - base


def scaled(t: Arrays, _: np.ndarray) -> np.ndarray:
    return t["scale"] * t["lora_up__weight"] @ t["lora_down__weight"]


def glora(t: Arrays, base: np.ndarray) -> np.ndarray:
    return t["alpha"] / 2 * (base @ t["a1__weight"] @ t["a2__weight"] + t["b1__weight"] @ t["b2__weight"])


def glora_old(t: Arrays, base: np.ndarray) -> np.ndarray:
    return t["alpha"] / 2 * (base @ t["a2__weight"] @ t["a1__weight"] + t["b2__weight"] @ t["b1__weight"])


def glora_conv(t: Arrays, base: np.ndarray) -> np.ndarray:
    a = flat(t["a1__weight"]) @ flat(t["a2__weight"])
    added = flat(t["b1__weight"]) @ flat(t["b2__weight"])
    return np.einsum("oihw,ij->ojhw", base, a).reshape(8, -1) + added


def ia3_rows(t: Arrays, base: np.ndarray) -> np.ndarray:
    return np.diag(t["weight"]) @ base


def ia3_columns(t: Arrays, base: np.ndarray) -> np.ndarray:
    return base @ np.diag(t["weight"])


def ia3_conv(t: Arrays, base: np.ndarray) -> np.ndarray:
    return base * t["weight"]


def rotation(blocks: np.ndarray, limit: float = 0) -> np.ndarray:
    """Block diagonal, transposed: as LyCORIS multiplies it to the left of the weight."""
    q = blocks - blocks.transpose(0, 2, 1)
    norm = np.sqrt((q**2).sum())
    if 0 < limit < norm:
        q = q * limit / norm
    size = blocks.shape[1]
    whole = np.zeros((len(q) * size, len(q) * size))
    for i, block in enumerate(q):
        r = (np.eye(size) + block) @ np.linalg.inv(np.eye(size) - block)
        whole[i * size : (i + 1) * size, i * size : (i + 1) * size] = r
    return whole.T


def oft(t: Arrays, base: np.ndarray) -> np.ndarray:
    return rotation(t["oft_blocks"]) @ flat(base) - flat(base)


def oft_constrained(t: Arrays, base: np.ndarray) -> np.ndarray:
    turned = rotation(t["oft_blocks"], float(t["alpha"]) * 12) @ base
    assert np.linalg.norm(turned - rotation(t["oft_blocks"]) @ base) > 0.1, "the limit does nothing"
    return turned - base


def oft_rescaled(t: Arrays, base: np.ndarray) -> np.ndarray:
    return t["rescale"] * (rotation(t["oft_blocks"]) @ base) - base


def oft_old(t: Arrays, base: np.ndarray) -> np.ndarray:
    return np.concatenate([r.T @ part for r, part in zip(t["oft_diag"], np.split(base, 3))]) - base


def boft(t: Arrays, base: np.ndarray) -> np.ndarray:
    """Stage i turns rows in groups of four: pairs 2^i * 2 apart."""
    weight = flat(base)
    for i, blocks in enumerate(t["oft_blocks"]):
        apart = 2**i * 2
        order = [start + k + half * apart for start in range(0, 8, 2 * apart) for k in range(apart) for half in (0, 1)]
        paired = rotation(blocks).T @ weight[order]
        weight = np.empty_like(weight)
        weight[order] = paired
    return weight - flat(base)


def normed(weight: np.ndarray, axis: int) -> np.ndarray:
    others = tuple(i for i in range(weight.ndim) if i != axis)
    return weight / np.sqrt((weight**2).sum(axis=others, keepdims=True))


def dora_rows(t: Arrays, base: np.ndarray) -> np.ndarray:
    return t["dora_scale"] * normed(base + t["alpha"] / 2 * t["lora_up__weight"] @ t["lora_down__weight"], 0) - base


def dora_columns(t: Arrays, base: np.ndarray) -> np.ndarray:
    return t["dora_scale"] * normed(base + t["lora_up__weight"] @ t["lora_down__weight"], 1) - base


def dora_peft(t: Arrays, base: np.ndarray) -> np.ndarray:
    return t["lora_magnitude_vector"][:, None] * normed(base + t["lora_B__weight"] @ t["lora_A__weight"], 0) - base


def dora_conv(t: Arrays, base: np.ndarray) -> np.ndarray:
    delta = flat(t["lora_up__weight"]) @ flat(t["lora_down__weight"])
    return t["dora_scale"] * normed(base + delta.reshape(base.shape), 1) - base


def dora_lokr(t: Arrays, base: np.ndarray) -> np.ndarray:
    return t["dora_scale"] * normed(base + np.kron(t["lokr_w1"], t["lokr_w2"]), 0) - base
