"""A checkpoint gives each layer's weight, whatever program wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_nplora.errors import FileError
from lib_nplora.files import Base, names
from lib_nplora.files.slot import Slot
from tests import loras

W = torch.randn(48, 16)


def saved(folder: Path, **tensors: torch.Tensor) -> Base:
    save_file({name: t.clone().contiguous() for name, t in tensors.items()}, folder / "base.safetensors")
    return Base(folder / "base.safetensors")


def slot(module: str) -> Slot:
    found = names.slot_of(module)
    assert found is not None
    return found


CLIP = "conditioner.embedders.1.model.transformer.resblocks.0"
DIFFUSION = "model.diffusion_model"
TEXT = "text_model_encoder_layers_0_self_attn"


@pytest.mark.parametrize(
    ("tensor", "layer", "rows"),
    [
        ("model.diffusion_model.middle_block.1.proj_in.weight", "lora_unet_mid_block_attentions_0_proj_in", None),
        ("mid_block.attentions.0.proj_in.weight", "lora_unet_mid_block_attentions_0_proj_in", None),
        ("unet.mid_block.attentions.0.proj_in.weight", "lora_unet_mid_block_attentions_0_proj_in", None),
        ("cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
         "lora_te1_text_model_encoder_layers_0_mlp_fc1", None),
        ("conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
         "lora_te1_text_model_encoder_layers_0_mlp_fc1", None),
        (f"{CLIP}.mlp.c_fc.weight",
         "lora_te2_text_model_encoder_layers_0_mlp_fc1", None),
        (f"{CLIP}.mlp.c_proj.weight",
         "lora_te2_text_model_encoder_layers_0_mlp_fc2", None),
        (f"{CLIP}.attn.out_proj.weight", f"lora_te2_{TEXT}_out_proj", None),
        (f"{CLIP}.attn.in_proj_weight", f"lora_te2_{TEXT}_q_proj", (0, 16)),
        (f"{CLIP}.attn.in_proj_weight", f"lora_te2_{TEXT}_k_proj", (16, 32)),
        ("cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight", f"lora_te1_{TEXT}_v_proj", (32, 48)),
        (f"{DIFFUSION}.double_blocks.0.img_attn.qkv.weight", "lora_unet_transformer_blocks_0_attn_qkv", None),
        (f"{DIFFUSION}.joint_blocks.0.x_block.attn.qkv.weight", "lora_unet_transformer_blocks_0_attn_qkv", None),
        ("text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.weight",
         "lora_te3_encoder_block_0_layer_0_SelfAttention_q", None),
    ],
)  # fmt: skip
def test_names_of_checkpoints(tmp_path: Path, tensor: str, layer: str, rows: tuple[int, int] | None) -> None:
    base = saved(tmp_path, **{tensor: W, "model.diffusion_model.middle_block.1.norm.bias": W[0]})
    expected = W[slice(*rows)] if rows else W
    assert base.shape(Slot(layer)) == tuple(expected.shape)
    assert torch.equal(base.weight(Slot(layer)), expected)


def test_the_projection_of_open_clip_is_turned(tmp_path: Path) -> None:
    base = saved(tmp_path, **{"conditioner.embedders.1.model.text_projection": W})
    assert base.shape(Slot("lora_te2_text_projection")) == (16, 48)
    assert torch.equal(base.weight(Slot("lora_te2_text_projection")), W.T)


@pytest.mark.parametrize("blocks", [loras.FLUX, loras.SD3], ids=["flux", "sd3"])
@pytest.mark.parametrize("whole", [True, False])
def test_slices_and_whole_layers_of_each_other(tmp_path: Path, blocks: list[loras.Block], whole: bool) -> None:
    """A slice is read from a whole layer, a whole layer from slices, in the order of rows of whoever asks."""
    weights = {block: torch.randn(block.height, block.width) for block in blocks}
    tensors = {}
    for block, weight in weights.items():
        if whole:
            tensors[f"model.diffusion_model.{block.original}.weight"] = weight
        else:
            parts = loras.in_diffusers_order(block, weight).split(list(block.pieces.values()))
            tensors |= {f"{name}.weight": part for name, part in zip(block.pieces, parts)}
    base = saved(tmp_path, **tensors)
    for block, weight in weights.items():
        assert torch.equal(base.weight(slot(f"diffusion_model.{block.original}")), weight)
        parts = loras.in_diffusers_order(block, weight).split(list(block.pieces.values()))
        for name, part in zip(block.pieces, parts):
            assert base.shape(slot(f"transformer.{name}")) == tuple(part.shape)
            assert torch.equal(base.weight(slot(f"transformer.{name}")), part)
    if blocks is loras.FLUX:
        weight = next(weight for block, weight in weights.items() if block.original == "single_blocks.1.linear1")
        assert torch.equal(base.weight(slot("single_blocks.1.processor.qkv")), weight[: 3 * loras.H])


def test_a_layer_that_lacks_a_slice_is_missing(tmp_path: Path) -> None:
    base = saved(tmp_path, **{f"transformer_blocks.0.attn.to_{x}.weight": W[:16] for x in "qk"})
    assert torch.equal(base.weight(slot("transformer.transformer_blocks.0.attn.to_k")), W[:16])
    for module in ("transformer.transformer_blocks.0.attn.to_v", "double_blocks.0.img_attn.qkv"):
        with pytest.raises(FileError, match=r"'base\.safetensors' has no layer .*attn_qkv"):
            base.weight(slot(module))


def test_narrow_numbers_and_their_scale(tmp_path: Path) -> None:
    narrow = W.to(torch.float8_e4m3fn)
    base = saved(tmp_path, **{"mid_block.attentions.0.proj_in.weight": narrow})
    assert torch.equal(base.weight(slot("mid_block.attentions.0.proj_in")), narrow.float())
    scale = {"mid_block.attentions.0.proj_in.scale_weight": torch.tensor(0.25)}
    base = saved(tmp_path, **{"mid_block.attentions.0.proj_in.weight": narrow}, **scale)
    assert torch.equal(base.weight(slot("mid_block.attentions.0.proj_in")), narrow.float() / 4)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is no checkpoint of SD 1"):
        saved(tmp_path, x=W)
    base = saved(tmp_path, **{"mid_block.attentions.0.proj_in.weight": torch.zeros(64, dtype=torch.uint8)})
    with pytest.raises(FileError, match=r"in the form U8 .* not quantised"):
        base.weight(slot("mid_block.attentions.0.proj_in"))
    base = saved(tmp_path, **{"mid_block.attentions.0.proj_in.weight": W * float("nan")})
    with pytest.raises(FileError, match=r"'base\.safetensors' holds values that are not finite"):
        base.weight(slot("mid_block.attentions.0.proj_in"))
    for name, words in (
        ("x.gguf", "is a GGUF file"),
        ("x.ckpt", "can run code"),
        ("x.safetensors", "there is no file"),
    ):
        with pytest.raises(FileError, match=words):
            Base(tmp_path / name)


def test_slices_and_thirds_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    slices = {f"transformer_blocks.0.attn.to_{x}.weight": W[: 16 + i, : 16 - i] for i, x in enumerate("qkv")}
    with pytest.raises(FileError, match="in slices that do not fit"):
        saved(tmp_path, **slices).shape(slot("double_blocks.0.img_attn.qkv"))
    with pytest.raises(FileError, match="cannot be read"):
        saved(tmp_path, **{f"{CLIP}.attn.in_proj_weight": W[:47]}).shape(Slot(f"lora_te2_{TEXT}_q_proj"))


def test_the_digest_tells_checkpoints_apart(tmp_path: Path) -> None:
    first = saved(tmp_path, **{"conv_in.weight": W}).digest
    assert first == saved(tmp_path, **{"conv_in.weight": W}).digest
    assert first != saved(tmp_path, **{"conv_in.weight": -W}).digest
