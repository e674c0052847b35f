"""diffusers as judge of how other programs name the layers of Flux and SD 3: its converters against our reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.loaders.lora_conversion_utils import (
    _convert_bfl_flux_control_lora_to_diffusers,
    _convert_kohya_flux_lora_to_diffusers,
    _convert_xlabs_flux_lora_to_diffusers,
)
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from safetensors.torch import save_file
from torch import Tensor

from lib_nplora.files import read_lora
from lib_nplora.maths.lowrank import LowRankDelta
from tests import reference
from tests.files.judging import CLOSE
from tests.files.mmdit import SWAPPED, factors

WIDTH = 3072
"""How wide Flux is; diffusers' converters know no other."""

FLUX = {
    "double_blocks.{}.img_attn.qkv": (9216, 3072),
    "double_blocks.{}.txt_attn.qkv": (9216, 3072),
    "double_blocks.{}.img_attn.proj": (3072, 3072),
    "double_blocks.{}.txt_attn.proj": (3072, 3072),
    "double_blocks.{}.img_mlp.0": (12288, 3072),
    "double_blocks.{}.img_mlp.2": (3072, 12288),
    "double_blocks.{}.txt_mlp.0": (12288, 3072),
    "double_blocks.{}.txt_mlp.2": (3072, 12288),
    "double_blocks.{}.img_mod.lin": (18432, 3072),
    "double_blocks.{}.txt_mod.lin": (18432, 3072),
    "single_blocks.{}.linear1": (21504, 3072),
    "single_blocks.{}.linear2": (3072, 15360),
    "single_blocks.{}.modulation.lin": (9216, 3072),
}
FLUX_ENDS = {
    "img_in": (3072, 64),
    "txt_in": (3072, 4096),
    "time_in.in_layer": (3072, 256),
    "time_in.out_layer": (3072, 3072),
    "vector_in.in_layer": (3072, 768),
    "vector_in.out_layer": (3072, 3072),
    "guidance_in.in_layer": (3072, 256),
    "guidance_in.out_layer": (3072, 3072),
    "final_layer.adaLN_modulation.1": (6144, 3072),
    "final_layer.linear": (64, 3072),
}
"""Layers as Black Forest Labs call them: (out, in)."""


def flux_layers(blocks: int) -> dict[str, tuple[int, int]]:
    return {name.format(i): shape for name, shape in FLUX.items() for i in range(blocks)} | FLUX_ENDS


def responses(path: Path) -> dict[str, list[tuple[int, int, np.ndarray]]]:
    """What each layer of a file answers to two inputs: (start, stop) of its rows, answer. Slices that touch are one."""
    found: dict[str, list[tuple[int, int, np.ndarray]]] = {}
    for key, delta in read_lora(path).weights.deltas.items():
        out, in_ = delta.shape
        probe = torch.randn(in_, 2, generator=torch.Generator().manual_seed(in_), dtype=torch.float64)
        factors = (delta.up, delta.down) if isinstance(delta, LowRankDelta) else (delta.matrix, torch.eye(in_))
        answer = (factors[0].double() @ (factors[1].double() @ probe)).numpy()
        start, stop = key.rows or (0, out)
        found.setdefault(str(key.name), []).append((start, stop, answer))
    return {name: joined(sorted(pieces, key=lambda piece: piece[0])) for name, pieces in found.items()}


def joined(pieces: list[tuple[int, int, np.ndarray]]) -> list[tuple[int, int, np.ndarray]]:
    done = pieces[:1]
    for start, stop, answer in pieces[1:]:
        first, last, before = done[-1]
        if last == start:
            done[-1] = (first, stop, np.concatenate([before, answer]))
        else:
            done.append((start, stop, answer))
    return done


def assert_same_layers(path: Path, other: Path) -> None:
    found, expected = responses(path), responses(other)
    assert found.keys() == expected.keys()
    for name in expected:
        assert [piece[:2] for piece in found[name]] == [piece[:2] for piece in expected[name]], name
        for ours, theirs in zip(found[name], expected[name]):
            assert reference.error(ours[2], theirs[2]) < CLOSE, name


def with_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' converters leave it out of some names."""
    names = {name: name if name.startswith("transformer.") else f"transformer.{name}" for name in state}
    return {names[name]: tensor.clone().contiguous() for name, tensor in state.items()}


def saved(folder: Path, theirs: dict[str, Tensor], convert: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    save_file(theirs, folder / "theirs.safetensors")
    save_file(with_prefix(convert(dict(theirs))), folder / "diffusers.safetensors")
    return folder / "theirs.safetensors"


@pytest.mark.parametrize("prefix", ["lora_unet_", "diffusion_model."])
def test_flux_files_of_kohya_s_scripts(tmp_path: Path, prefix: str) -> None:
    """The same tensors under the dotted names of ComfyUI mean the same."""
    generator = torch.Generator().manual_seed(1)
    kohya, spelled = {}, {}
    for name, shape in flux_layers(2).items():
        up, down = factors(*shape, 2, generator)
        flat = f"lora_unet_{name.replace('.', '_')}"
        tensors = {"lora_up.weight": up, "lora_down.weight": down}
        if "final_layer" not in name:  # whose alpha diffusers leaves out
            tensors["alpha"] = torch.tensor(0.5)
        kohya |= {f"{flat}.{role}": tensor for role, tensor in tensors.items()}
        spelled |= {f"{flat if prefix == 'lora_unet_' else prefix + name}.{role}": t for role, t in tensors.items()}
    path = saved(tmp_path, kohya, _convert_kohya_flux_lora_to_diffusers)
    save_file(spelled, path)
    assert_same_layers(path, tmp_path / "diffusers.safetensors")


def test_flux_files_of_kohya_s_scripts_that_split_qkv(tmp_path: Path) -> None:
    """A fused layer of block-diagonal factors, which diffusers takes apart."""
    up, down = torch.zeros(9216, 6), torch.randn(6, 3072)
    for i in range(3):
        up[i * 3072 : (i + 1) * 3072, 2 * i : 2 * i + 2] = torch.randn(3072, 2)
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    state = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down, f"{name}.alpha": torch.tensor(3.0)}
    path = saved(tmp_path, state, _convert_kohya_flux_lora_to_diffusers)
    assert_same_layers(path, tmp_path / "diffusers.safetensors")


@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
def test_flux_files_of_xlabs(tmp_path: Path, prefix: str) -> None:
    generator = torch.Generator().manual_seed(2)
    state = {}
    for name, shape in {
        "double_blocks.0.processor.qkv_lora1": (9216, 3072),
        "double_blocks.0.processor.qkv_lora2": (9216, 3072),
        "double_blocks.0.processor.proj_lora1": (3072, 3072),
        "double_blocks.0.processor.proj_lora2": (3072, 3072),
        "single_blocks.3.processor.qkv_lora": (9216, 3072),
        "single_blocks.3.processor.proj_lora": (3072, 15360),
    }.items():
        up, down = factors(*shape, 2, generator)
        state |= {f"{prefix}{name}.up.weight": up, f"{prefix}{name}.down.weight": down}
    assert_same_layers(
        saved(tmp_path, state, _convert_xlabs_flux_lora_to_diffusers), tmp_path / "diffusers.safetensors"
    )


def test_flux_files_of_black_forest_labs(tmp_path: Path) -> None:
    """All 57 blocks, with the biases of a control LoRA.

    Rank 1, but for the last norm: there diffusers swaps the halves of `down`, too, which is harmless if they are equal.
    """
    generator = torch.Generator().manual_seed(3)
    names = {name.format(i): shape for name, shape in FLUX.items() for i in range(19 if "double" in name else 38)}
    state = {}
    for name, shape in (names | FLUX_ENDS).items():
        up, down = factors(*shape, 1, generator)
        if name in SWAPPED:
            up, down = factors(shape[0], 1, 2, generator)[0], torch.cat([down, down])
        bias = torch.randn(shape[0], generator=generator)
        state |= {f"{name}.lora_B.weight": up, f"{name}.lora_A.weight": down, f"{name}.lora_B.bias": bias}

    def convert(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
        norms = [f"single_blocks.{i}.norm" for i in range(38)]
        norms += [f"double_blocks.{i}.{side}_attn.norm" for i in range(19) for side in ("img", "txt")]
        ones = {f"{norm}.{kind}_norm.scale": torch.ones(1) for norm in norms for kind in ("query", "key")}
        converted = _convert_bfl_flux_control_lora_to_diffusers({**theirs, **ones})
        return {name: tensor for name, tensor in converted.items() if "lora_" in name}

    assert_same_layers(saved(tmp_path, state, convert), tmp_path / "diffusers.safetensors")


SD3_WIDTH = 64
SD3 = {
    "x_block.attn.qkv": (3, 1),
    "context_block.attn.qkv": (3, 1),
    "x_block.attn2.qkv": (3, 1),
    "x_block.attn.proj": (1, 1),
    "context_block.attn.proj": (1, 1),
    "x_block.attn2.proj": (1, 1),
    "x_block.mlp.fc1": (4, 1),
    "x_block.mlp.fc2": (1, 4),
    "context_block.mlp.fc1": (4, 1),
    "context_block.mlp.fc2": (1, 4),
    "x_block.adaLN_modulation.1": (9, 1),
    "context_block.adaLN_modulation.1": (6, 1),
}
SD3_ENDS = {
    "context_embedder": (1, 3),
    "t_embedder.mlp.0": (1, 4),
    "t_embedder.mlp.2": (1, 1),
    "y_embedder.mlp.0": (1, 2),
    "y_embedder.mlp.2": (1, 1),
    "final_layer.adaLN_modulation.1": (2, 1),
}
"""Layers as Stability AI call them: (out, in) in widths of the model. A block's name goes before the first ones."""

LAST_BLOCK_LACKS = ("context_block.attn.proj", "context_block.mlp.fc1", "context_block.mlp.fc2")


def sd3_layers() -> dict[str, tuple[int, int]]:
    """Two blocks; the last one's context is only normed, by scale and shift."""
    names = {f"joint_blocks.{i}.{name}": shape for name, shape in SD3.items() for i in range(2)} | SD3_ENDS
    names["joint_blocks.1.context_block.adaLN_modulation.1"] = (2, 1)
    for name in LAST_BLOCK_LACKS:
        del names[f"joint_blocks.1.{name}"]
    return {name: (out * SD3_WIDTH, in_ * SD3_WIDTH) for name, (out, in_) in names.items()}


class Forgiving(dict[str, Tensor]):
    """A checkpoint that has whatever it is asked for."""

    def pop(self, name: str, *default: object) -> Tensor:
        return super().pop(name, torch.full((6, 1), -1.0))


@pytest.mark.parametrize("prefix", ["lora_unet_", "diffusion_model."])
def test_sd3_files_in_the_names_of_stability(tmp_path: Path, prefix: str) -> None:
    """diffusers has a converter for checkpoints only: it is given the one column of every `up` for a weight."""
    generator = torch.Generator().manual_seed(4)
    ups, downs, state = {}, {}, {}
    for name, shape in sd3_layers().items():
        ups[name], down = factors(*shape, 1, generator)
        downs[float(ups[name].square().sum())] = down
        full = prefix + (name.replace(".", "_") if prefix.endswith("_") else name)
        state |= {f"{full}.lora_up.weight": ups[name], f"{full}.lora_down.weight": down}
    checkpoint = Forgiving({f"{name}.weight": up for name, up in ups.items()})
    converted = convert_sd3_transformer_checkpoint_to_diffusers(checkpoint)
    down_of = {column: down for name, up in ups.items() for column, down in columns(up, downs)}
    spelled = {}
    for name, column in converted.items():
        if name.endswith(".weight") and (found := down_of.get(float(column.flatten()[0]))) is not None:
            layer = f"transformer.{name.removesuffix('.weight')}"
            spelled |= {f"{layer}.lora_B.weight": column.contiguous(), f"{layer}.lora_A.weight": found.clone()}
    save_file(state, tmp_path / "theirs.safetensors")
    save_file(spelled, tmp_path / "diffusers.safetensors")
    assert len(spelled) // 2 == len(ups) + 2 * sum(name.endswith("qkv") for name in ups)
    assert_same_layers(tmp_path / "theirs.safetensors", tmp_path / "diffusers.safetensors")


def columns(up: Tensor, downs: Mapping[float, Tensor]) -> list[tuple[float, Tensor]]:
    """Every number of `up`, which tells where it came from, with the `down` that belongs to it."""
    down = downs[float(up.square().sum())]
    return [(value, down) for value in up.flatten().tolist()]
