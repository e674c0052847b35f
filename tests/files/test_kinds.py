"""Each kind of network gives the delta that its formula says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lib_nplora.errors import FileError
from lib_nplora.files import read_lora
from lib_nplora.layers.key import ModuleKey
from tests import reference
from tests.reference import kinds
from tests.reference.kinds import Arrays, flat

LINEAR, CONV = "lora_unet_mid_block_attentions_0_proj_in", "lora_unet_mid_block_resnets_0_conv1"
BASES = {LINEAR: "mid_block.attentions.0.proj_in.weight", CONV: "mid_block.resnets.0.conv1.weight"}
SHAPES = {LINEAR: (12, 8), CONV: (8, 6, 3, 3)}


@dataclass(frozen=True)
class Case:
    """A kind of network on one layer.

    formula
        Its delta, of the values of its tensors and the base weight.
    shapes
        Role of a tensor -> its shape; `__` stands for a dot.
    """

    layer: str
    formula: kinds.Formula
    shapes: dict[str, tuple[int, ...]]


def linear(formula: kinds.Formula, **shapes: tuple[int, ...]) -> Case:
    return Case(LINEAR, formula, shapes)


def conv(formula: kinds.Formula, **shapes: tuple[int, ...]) -> Case:
    return Case(CONV, formula, shapes)


CASES = {
    "LoHa": linear(kinds.loha, hada_w1_a=(12, 2), hada_w1_b=(2, 8), hada_w2_a=(12, 2), hada_w2_b=(2, 8), alpha=()),
    "LoHa conv": conv(kinds.loha, hada_w1_a=(8, 2), hada_w1_b=(2, 54), hada_w2_a=(8, 2), hada_w2_b=(2, 54), alpha=()),
    "LoHa without alpha": linear(
        kinds.loha_plain, hada_w1_a=(12, 2), hada_w1_b=(2, 8), hada_w2_a=(12, 2), hada_w2_b=(2, 8)
    ),
    "LoHa with cores": conv(
        kinds.loha_tucker,
        hada_w1_a=(2, 8),
        hada_w1_b=(2, 6),
        hada_t1=(2, 2, 3, 3),
        hada_w2_a=(2, 8),
        hada_w2_b=(2, 6),
        hada_t2=(2, 2, 3, 3),
        alpha=(),
    ),
    "LoKr of wholes": linear(kinds.lokr, lokr_w1=(3, 2), lokr_w2=(4, 4), alpha=()),
    "LoKr of wholes without alpha": linear(kinds.lokr, lokr_w1=(3, 2), lokr_w2=(4, 4)),
    "LoKr": linear(kinds.lokr_factors, lokr_w1=(3, 2), lokr_w2_a=(4, 2), lokr_w2_b=(2, 4), alpha=()),
    "LoKr conv": conv(kinds.lokr_factors, lokr_w1=(2, 2), lokr_w2_a=(4, 2), lokr_w2_b=(2, 27), alpha=()),
    "LoKr of both": linear(
        kinds.lokr_both, lokr_w1_a=(3, 1), lokr_w1_b=(1, 2), lokr_w2_a=(4, 1), lokr_w2_b=(1, 4), alpha=()
    ),
    "LoKr with a whole kernel": conv(kinds.lokr_kernel, lokr_w1=(2, 2), lokr_w2=(4, 3, 3, 3)),
    "LoKr with a core": conv(
        kinds.lokr_tucker, lokr_w1=(2, 2), lokr_w2_a=(2, 4), lokr_w2_b=(2, 3), lokr_t2=(2, 2, 3, 3), alpha=()
    ),
    "full": linear(kinds.full, diff=(12, 8)),
    "full conv": conv(kinds.full, diff=(8, 6, 3, 3)),
    "replaced": linear(kinds.replaced, set_weight=(12, 8)),
    "LoRA scaled": linear(kinds.scaled, lora_up__weight=(12, 2), lora_down__weight=(2, 8), alpha=(), scale=()),
    "GLoRA": linear(kinds.glora, a1__weight=(8, 2), a2__weight=(2, 8), b1__weight=(12, 2), b2__weight=(2, 8), alpha=()),
    "GLoRA of old": linear(
        kinds.glora_old, a1__weight=(2, 8), a2__weight=(8, 2), b1__weight=(2, 8), b2__weight=(12, 2), alpha=()
    ),
    "GLoRA conv": conv(
        kinds.glora_conv,
        a1__weight=(6, 2, 1, 1),
        a2__weight=(2, 6, 1, 1),
        b1__weight=(8, 2, 1, 1),
        b2__weight=(2, 6, 3, 3),
    ),
    "IA3 of rows": linear(kinds.ia3_rows, weight=(12,), on_input=()),
    "IA3 of columns": linear(kinds.ia3_columns, weight=(8,), on_input=()),
    "IA3 conv of columns": conv(kinds.ia3_conv, weight=(1, 6, 1, 1), on_input=()),
    "OFT": linear(kinds.oft, oft_blocks=(3, 4, 4)),
    "OFT conv": conv(kinds.oft, oft_blocks=(2, 4, 4)),
    "OFT constrained": linear(kinds.oft_constrained, oft_blocks=(3, 4, 4), alpha=()),
    "OFT rescaled": linear(kinds.oft_rescaled, oft_blocks=(3, 4, 4), rescale=(12, 1)),
    "OFT of old": linear(kinds.oft_old, oft_diag=(3, 4, 4)),
    "BOFT": conv(kinds.boft, oft_blocks=(2, 2, 4, 4)),
    "DoRA of rows": linear(
        kinds.dora_rows, lora_up__weight=(12, 2), lora_down__weight=(2, 8), dora_scale=(12, 1), alpha=()
    ),
    "DoRA of columns": linear(kinds.dora_columns, lora_up__weight=(12, 2), lora_down__weight=(2, 8), dora_scale=(1, 8)),
    "DoRA of PEFT": linear(kinds.dora_peft, lora_B__weight=(12, 2), lora_A__weight=(2, 8), lora_magnitude_vector=(12,)),
    "DoRA conv of columns": conv(
        kinds.dora_conv, lora_up__weight=(8, 2, 1, 1), lora_down__weight=(2, 6, 3, 3), dora_scale=(1, 6, 1, 1)
    ),
    "DoRA of a LoKr": linear(kinds.dora_lokr, lokr_w1=(3, 2), lokr_w2=(4, 4), dora_scale=(12, 1)),
}


def made(name: str, folder: Path) -> tuple[Path, Path, str, Arrays, np.ndarray]:
    """The case as files: LoRA, checkpoint; and its layer, tensors, base weight."""
    layer, shapes = CASES[name].layer, CASES[name].shapes
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
    expected = flat(CASES[name].formula(tensors, base).reshape(base.shape))
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
    roles = {role: torch.randn(shape).to(dtype) for role, shape in CASES["LoHa"].shapes.items() if role != "alpha"}
    (delta,) = read_lora(written(tmp_path, **roles)).weights.deltas.values()
    wide = {role: tensor.double().numpy() for role, tensor in roles.items()}
    assert reference.error(delta.dense(), kinds.loha_plain(wide, np.zeros(()))) < 1e-6


@pytest.mark.parametrize("name", ["LoHa", "LoKr", "full"])
def test_values_that_no_weight_has_are_refused(tmp_path: Path, name: str) -> None:
    for value, words in ((float("nan"), "not finite"), (3e38, "too large")):
        roles = {role: torch.full(shape, value) for role, shape in CASES[name].shapes.items() if role != "alpha"}
        deltas = read_lora(written(tmp_path, **roles)).weights.deltas
        with pytest.raises(FileError, match=rf"x\.safetensors.*{words}|{words}.*{LINEAR}"):
            list(deltas.values())


def test_alpha_0_is_nothing_and_divides_nothing(tmp_path: Path) -> None:
    roles = {role: torch.randn(shape) for role, shape in CASES["LoHa"].shapes.items()} | {"alpha": torch.tensor(0.0)}
    (delta,) = read_lora(written(tmp_path, **roles)).weights.deltas.values()
    assert not delta.dense().any()
