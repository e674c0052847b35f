"""Each kind of network gives the delta that its formula, written once more in numpy, says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lib_nplora.errors import FileError
from lib_nplora.files import read_lora
from lib_nplora.layers.key import ModuleKey
from lib_nplora.maths.dense import DenseDelta
from lib_nplora.maths.lowrank import LowRankDelta
from tests import reference

LINEAR, CONV = "lora_unet_mid_block_attentions_0_proj_in", "lora_unet_mid_block_resnets_0_conv1"
BASES = {LINEAR: "mid_block.attentions.0.proj_in.weight", CONV: "mid_block.resnets.0.conv1.weight"}
SHAPES = {LINEAR: (12, 8), CONV: (8, 6, 3, 3)}

Arrays = dict[str, np.ndarray]
Formula = Callable[[Arrays, np.ndarray], np.ndarray]
CASES: dict[str, tuple[str, dict[str, tuple[int, ...]], Formula]] = {}
"""Name -> layer, shapes of the tensors, delta of their values and the base weight."""


def case(name: str, layer: str = LINEAR, **shapes: tuple[int, ...]) -> Callable[[Formula], Formula]:
    def add(formula: Formula) -> Formula:
        CASES[name] = layer, shapes, formula
        return formula

    return add


def flat(a: np.ndarray) -> np.ndarray:
    return a.reshape(a.shape[0], -1)


@case("LoHa", hada_w1_a=(12, 2), hada_w1_b=(2, 8), hada_w2_a=(12, 2), hada_w2_b=(2, 8), alpha=())
@case("LoHa conv", CONV, hada_w1_a=(8, 2), hada_w1_b=(2, 54), hada_w2_a=(8, 2), hada_w2_b=(2, 54), alpha=())
def loha(t: Arrays, _: np.ndarray) -> np.ndarray:
    return t["alpha"] / 2 * (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])


@case("LoHa without alpha", hada_w1_a=(12, 2), hada_w1_b=(2, 8), hada_w2_a=(12, 2), hada_w2_b=(2, 8))
def loha_plain(t: Arrays, _: np.ndarray) -> np.ndarray:
    return (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])


@case("LoHa with cores", CONV, hada_w1_a=(2, 8), hada_w1_b=(2, 6), hada_t1=(2, 2, 3, 3),
      hada_w2_a=(2, 8), hada_w2_b=(2, 6), hada_t2=(2, 2, 3, 3), alpha=())  # fmt: skip
def loha_tucker(t: Arrays, _: np.ndarray) -> np.ndarray:
    def half(core: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.stack([a.T @ core[..., i, j] @ b for i in range(3) for j in range(3)], axis=-1)

    one, two = (half(t[f"hada_t{n}"], t[f"hada_w{n}_a"], t[f"hada_w{n}_b"]) for n in (1, 2))
    return t["alpha"] / 2 * one * two


@case("LoKr of wholes", lokr_w1=(3, 2), lokr_w2=(4, 4), alpha=())
@case("LoKr of wholes without alpha", lokr_w1=(3, 2), lokr_w2=(4, 4))
def lokr(t: Arrays, _: np.ndarray) -> np.ndarray:
    return np.kron(t["lokr_w1"], t["lokr_w2"])


@case("LoKr", lokr_w1=(3, 2), lokr_w2_a=(4, 2), lokr_w2_b=(2, 4), alpha=())
@case("LoKr conv", CONV, lokr_w1=(2, 2), lokr_w2_a=(4, 2), lokr_w2_b=(2, 27), alpha=())
def lokr_factors(t: Arrays, _: np.ndarray) -> np.ndarray:
    return t["alpha"] / 2 * np.kron(t["lokr_w1"], t["lokr_w2_a"] @ t["lokr_w2_b"])


@case("LoKr of both", lokr_w1_a=(3, 1), lokr_w1_b=(1, 2), lokr_w2_a=(4, 1), lokr_w2_b=(1, 4), alpha=())
def lokr_both(t: Arrays, _: np.ndarray) -> np.ndarray:
    return t["alpha"] * np.kron(t["lokr_w1_a"] @ t["lokr_w1_b"], t["lokr_w2_a"] @ t["lokr_w2_b"])


@case("LoKr with a whole kernel", CONV, lokr_w1=(2, 2), lokr_w2=(4, 3, 3, 3))
def lokr_kernel(t: Arrays, _: np.ndarray) -> np.ndarray:
    return np.stack([np.kron(t["lokr_w1"], t["lokr_w2"][..., i, j]) for i in range(3) for j in range(3)], axis=-1)


@case("LoKr with a core", CONV, lokr_w1=(2, 2), lokr_w2_a=(2, 4), lokr_w2_b=(2, 3), lokr_t2=(2, 2, 3, 3), alpha=())
def lokr_tucker(t: Arrays, _: np.ndarray) -> np.ndarray:
    kernels = [t["lokr_w2_a"].T @ t["lokr_t2"][..., i, j] @ t["lokr_w2_b"] for i in range(3) for j in range(3)]
    return t["alpha"] / 2 * np.stack([np.kron(t["lokr_w1"], kernel) for kernel in kernels], axis=-1)


@case("full", diff=(12, 8))
@case("full conv", CONV, diff=(8, 6, 3, 3))
def full(t: Arrays, _: np.ndarray) -> np.ndarray:
    return t["diff"]


@case("replaced", set_weight=(12, 8))
def replaced(t: Arrays, base: np.ndarray) -> np.ndarray:
    return t["set_weight"] - base


@case("LoRA scaled", lora_up__weight=(12, 2), lora_down__weight=(2, 8), alpha=(), scale=())
def scaled(t: Arrays, _: np.ndarray) -> np.ndarray:
    return t["scale"] * t["lora_up__weight"] @ t["lora_down__weight"]


@case("GLoRA", a1__weight=(8, 2), a2__weight=(2, 8), b1__weight=(12, 2), b2__weight=(2, 8), alpha=())
def glora(t: Arrays, base: np.ndarray) -> np.ndarray:
    return t["alpha"] / 2 * (base @ t["a1__weight"] @ t["a2__weight"] + t["b1__weight"] @ t["b2__weight"])


@case("GLoRA of old", a1__weight=(2, 8), a2__weight=(8, 2), b1__weight=(2, 8), b2__weight=(12, 2), alpha=())
def glora_old(t: Arrays, base: np.ndarray) -> np.ndarray:
    return t["alpha"] / 2 * (base @ t["a2__weight"] @ t["a1__weight"] + t["b2__weight"] @ t["b1__weight"])


@case("GLoRA conv", CONV, a1__weight=(6, 2, 1, 1), a2__weight=(2, 6, 1, 1), b1__weight=(8, 2, 1, 1),
      b2__weight=(2, 6, 3, 3))  # fmt: skip
def glora_conv(t: Arrays, base: np.ndarray) -> np.ndarray:
    a = flat(t["a1__weight"]) @ flat(t["a2__weight"])
    added = flat(t["b1__weight"]) @ flat(t["b2__weight"])
    return np.einsum("oihw,ij->ojhw", base, a).reshape(8, -1) + added


@case("IA3 of rows", weight=(12,), on_input=())
def ia3_rows(t: Arrays, base: np.ndarray) -> np.ndarray:
    return np.diag(t["weight"]) @ base


@case("IA3 of columns", weight=(8,), on_input=())
def ia3_columns(t: Arrays, base: np.ndarray) -> np.ndarray:
    return base @ np.diag(t["weight"])


@case("IA3 conv of columns", CONV, weight=(1, 6, 1, 1), on_input=())
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


@case("OFT", oft_blocks=(3, 4, 4))
@case("OFT conv", CONV, oft_blocks=(2, 4, 4))
def oft(t: Arrays, base: np.ndarray) -> np.ndarray:
    return rotation(t["oft_blocks"]) @ flat(base) - flat(base)


@case("OFT constrained", oft_blocks=(3, 4, 4), alpha=())
def oft_constrained(t: Arrays, base: np.ndarray) -> np.ndarray:
    turned = rotation(t["oft_blocks"], float(t["alpha"]) * 12) @ base
    assert np.linalg.norm(turned - rotation(t["oft_blocks"]) @ base) > 0.1, "the limit does nothing"
    return turned - base


@case("OFT rescaled", oft_blocks=(3, 4, 4), rescale=(12, 1))
def oft_rescaled(t: Arrays, base: np.ndarray) -> np.ndarray:
    return t["rescale"] * (rotation(t["oft_blocks"]) @ base) - base


@case("OFT of old", oft_diag=(3, 4, 4))
def oft_old(t: Arrays, base: np.ndarray) -> np.ndarray:
    return np.concatenate([r.T @ part for r, part in zip(t["oft_diag"], np.split(base, 3))]) - base


@case("BOFT", CONV, oft_blocks=(2, 2, 4, 4))
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


@case("DoRA of rows", lora_up__weight=(12, 2), lora_down__weight=(2, 8), dora_scale=(12, 1), alpha=())
def dora_rows(t: Arrays, base: np.ndarray) -> np.ndarray:
    return t["dora_scale"] * normed(base + t["alpha"] / 2 * t["lora_up__weight"] @ t["lora_down__weight"], 0) - base


@case("DoRA of columns", lora_up__weight=(12, 2), lora_down__weight=(2, 8), dora_scale=(1, 8))
def dora_columns(t: Arrays, base: np.ndarray) -> np.ndarray:
    return t["dora_scale"] * normed(base + t["lora_up__weight"] @ t["lora_down__weight"], 1) - base


@case("DoRA of PEFT", lora_B__weight=(12, 2), lora_A__weight=(2, 8), lora_magnitude_vector=(12,))
def dora_peft(t: Arrays, base: np.ndarray) -> np.ndarray:
    return t["lora_magnitude_vector"][:, None] * normed(base + t["lora_B__weight"] @ t["lora_A__weight"], 0) - base


@case("DoRA conv of columns", CONV, lora_up__weight=(8, 2, 1, 1), lora_down__weight=(2, 6, 3, 3),
      dora_scale=(1, 6, 1, 1))  # fmt: skip
def dora_conv(t: Arrays, base: np.ndarray) -> np.ndarray:
    delta = flat(t["lora_up__weight"]) @ flat(t["lora_down__weight"])
    return t["dora_scale"] * normed(base + delta.reshape(base.shape), 1) - base


@case("DoRA of a LoKr", lokr_w1=(3, 2), lokr_w2=(4, 4), dora_scale=(12, 1))
def dora_lokr(t: Arrays, base: np.ndarray) -> np.ndarray:
    return t["dora_scale"] * normed(base + np.kron(t["lokr_w1"], t["lokr_w2"]), 0) - base


def made(name: str, folder: Path) -> tuple[Path, Path, str, Arrays, np.ndarray]:
    """The case as files: LoRA, checkpoint; and its layer, tensors, base weight."""
    layer, shapes, _ = CASES[name]
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    tensors = {role: torch.randn(shape, generator=generator) for role, shape in shapes.items()}
    if "constrained" in name:
        tensors["alpha"] = torch.tensor(0.02)
    if "on_input" in tensors:
        tensors["on_input"] = torch.tensor(int("columns" in name))
    base = torch.randn(SHAPES[layer], generator=generator)
    save_file({f"{layer}.{role.replace('__', '.')}": t for role, t in tensors.items()}, folder / "x.safetensors")
    save_file({BASES[layer]: base}, folder / "base.safetensors")
    arrays = {role: tensor.double().numpy() for role, tensor in tensors.items()}
    return folder / "x.safetensors", folder / "base.safetensors", layer, arrays, base.double().numpy()


@pytest.mark.parametrize("name", CASES)
def test_the_delta_is_that_of_the_formula(tmp_path: Path, name: str) -> None:
    path, base_path, layer, tensors, base = made(name, tmp_path)
    delta = read_lora(path, base_path).weights.deltas[ModuleKey(layer, "unet")]
    expected = flat(CASES[name][2](tensors, base).reshape(base.shape))
    assert delta.kernel == SHAPES[layer][2:]
    assert reference.error(delta.dense(), expected) < 1e-5
    assert np.linalg.norm(expected) > 0.1


@pytest.mark.parametrize(
    "name", [name for name in CASES if name.startswith(("GLoRA", "IA3", "OFT", "BOFT", "DoRA", "rep"))]
)
def test_a_base_is_asked_for_and_has_to_fit(tmp_path: Path, name: str) -> None:
    path, base_path, layer, _, base = made(name, tmp_path)
    with pytest.raises(FileError, match=r"'x\.safetensors' holds .* modules .*--base"):
        read_lora(path)
    other = torch.zeros(base.shape[0] + 1, base.shape[1] + 1, *base.shape[2:])
    save_file({BASES[layer]: other}, base_path)
    with pytest.raises(FileError, match=rf"x\.safetensors.* does not fit 'base\.safetensors': layer {layer}"):
        read_lora(path, base_path)
    save_file({"conv_in.weight": other}, base_path)
    with pytest.raises(FileError, match=rf"'base\.safetensors' has no layer {layer}"):
        read_lora(path, base_path)


def written(folder: Path, **roles: torch.Tensor) -> Path:
    save_file({f"{LINEAR}.{role.replace('__', '.')}": t for role, t in roles.items()}, folder / "x.safetensors")
    return folder / "x.safetensors"


def test_products_of_small_rank_have_factors(tmp_path: Path) -> None:
    """LoHa of rank r has rank r^2, LoKr the product of its halves' ranks; if that is small they are factors."""
    g = torch.Generator().manual_seed(0)
    a, b, c, d = (torch.randn(shape, generator=g) for shape in ((64, 2), (2, 48), (64, 2), (2, 48)))
    path = written(tmp_path, hada_w1_a=a, hada_w1_b=b, hada_w2_a=c, hada_w2_b=d)
    (delta,) = read_lora(path).weights.deltas.values()
    assert isinstance(delta, LowRankDelta)
    assert delta.rank == 4
    torch.testing.assert_close(delta.dense(), (a @ b) * (c @ d), atol=1e-5, rtol=1e-5)
    path = written(tmp_path, lokr_w1=torch.randn(4, 3), lokr_w2_a=torch.randn(16, 2), lokr_w2_b=torch.randn(2, 16))
    (delta,) = read_lora(path).weights.deltas.values()
    assert isinstance(delta, LowRankDelta)
    assert delta.rank == 6
    path = written(tmp_path, lokr_w1=torch.randn(4, 3), lokr_w2=torch.randn(16, 16))
    (delta,) = read_lora(path).weights.deltas.values()
    assert isinstance(delta, DenseDelta)


def test_norms_and_biases_are_deltas_of_their_own(tmp_path: Path) -> None:
    name = "lora_unet_down_blocks_0_resnets_0_norm1"
    up, down = torch.randn(12, 2), torch.randn(2, 8)
    state = {
        "lora_unet_input_blocks_1_0_in_layers_0.w_norm": torch.randn(6),
        "lora_unet_input_blocks_1_0_in_layers_0.b_norm": torch.randn(6),
        f"{LINEAR}.lora_up.weight": up,
        f"{LINEAR}.lora_down.weight": down,
        f"{LINEAR}.diff_b": torch.randn(12),
        f"{CONV}.diff_b": torch.randn(8),
        "unet.mid_block.attentions.0.proj_out.lora_B.weight": up.clone(),
        "unet.mid_block.attentions.0.proj_out.lora_A.weight": down.clone(),
        "unet.mid_block.attentions.0.proj_out.lora_B.bias": torch.ones(12),
        "unet.mid_block.attentions.0.proj_out.alpha": torch.tensor(4.0),
    }
    save_file(state, tmp_path / "x.safetensors")
    deltas = read_lora(tmp_path / "x.safetensors").weights.deltas
    scaled = "lora_unet_mid_block_attentions_0_proj_out"
    vectors = {
        name: state["lora_unet_input_blocks_1_0_in_layers_0.w_norm"],
        f"{name}.bias": state["lora_unet_input_blocks_1_0_in_layers_0.b_norm"],
        f"{LINEAR}.bias": state[f"{LINEAR}.diff_b"],
        f"{CONV}.bias": state[f"{CONV}.diff_b"],
        f"{scaled}.bias": 2 * torch.ones(12),
    }
    assert {str(key) for key in deltas} == {*vectors, LINEAR, scaled}
    for vector, values in vectors.items():
        delta = deltas[ModuleKey(vector, "unet")]
        assert not delta.has_input_side
        assert torch.equal(delta.dense().flatten(), values)


def test_single_entries_beside_factors_are_added(tmp_path: Path) -> None:
    up, down = torch.randn(12, 2), torch.randn(2, 8)
    path = written(
        tmp_path, lora_up__weight=up, lora_down__weight=down, alpha=torch.tensor(1.0),
        bias_values=torch.tensor([5.0, 7.0]), bias_indices=torch.tensor([[0, 11], [7, 0]]),
        bias_size=torch.tensor([12, 8]),
    )  # fmt: skip
    (delta,) = read_lora(path).weights.deltas.values()
    expected = up @ down
    expected[0, 7] += 5
    expected[11, 0] += 7
    torch.testing.assert_close(delta.dense(), expected / 2)
    for indices in ([[0, 12], [7, 0]], [[0, -1], [7, 0]]):
        path = written(
            tmp_path, lora_up__weight=up, lora_down__weight=down, bias_values=torch.tensor([5.0, 7.0]),
            bias_indices=torch.tensor(indices), bias_size=torch.tensor([12, 8]),
        )  # fmt: skip
        with pytest.raises(FileError, match="bias_indices that do not fit"):
            list(read_lora(path).weights.deltas.values())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16])
def test_narrow_numbers_are_widened_before_anything_is_multiplied(tmp_path: Path, dtype: torch.dtype) -> None:
    roles = {role: torch.randn(shape).to(dtype) for role, shape in CASES["LoHa"][1].items() if role != "alpha"}
    (delta,) = read_lora(written(tmp_path, **roles)).weights.deltas.values()
    wide = {role: tensor.double().numpy() for role, tensor in roles.items()}
    assert reference.error(delta.dense(), loha_plain(wide, np.zeros(()))) < 1e-6


@pytest.mark.parametrize("name", ["LoHa", "LoKr", "full"])
def test_values_that_no_weight_has_are_refused(tmp_path: Path, name: str) -> None:
    for value, words in ((float("nan"), "not finite"), (3e38, "too large")):
        roles = {role: torch.full(shape, value) for role, shape in CASES[name][1].items() if role != "alpha"}
        deltas = read_lora(written(tmp_path, **roles)).weights.deltas
        with pytest.raises(FileError, match=rf"x\.safetensors.*{words}|{words}.*{LINEAR}"):
            list(deltas.values())


def test_alpha_0_is_nothing_and_divides_nothing(tmp_path: Path) -> None:
    roles = {role: torch.randn(shape) for role, shape in CASES["LoHa"][1].items()} | {"alpha": torch.tensor(0.0)}
    (delta,) = read_lora(written(tmp_path, **roles)).weights.deltas.values()
    assert not delta.dense().any()
