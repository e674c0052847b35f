"""Every spelling of a module lands on one name."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)

from lib_nplora.files import names
from tests import loras


def layer(module: str) -> str | None:
    place = names.slot_of(module)
    return place and place.layer


MODULES = {module.canonical: module for module in loras.SDXL}


@pytest.mark.parametrize("spelling", loras.SPELLINGS)
def test_every_spelling_means_the_same_module(spelling: str) -> None:
    for canonical, module in MODULES.items():
        for tensor, role in zip(loras.SPELLINGS[spelling](module), ("up", "down", "alpha")):
            name, found = names.split(tensor) or ("", None)
            assert found == role, tensor
            assert layer(name) == canonical, tensor


@pytest.mark.parametrize("canonical", MODULES)
def test_a_canonical_name_is_its_own(canonical: str) -> None:
    assert layer(canonical) == canonical


@pytest.mark.parametrize(
    ("module", "canonical"),
    [
        ("lora_unet_output_blocks_2_1_conv", "lora_unet_up_blocks_0_upsamplers_0_conv"),
        ("lora_unet_input_blocks_11_0_in_layers_2", "lora_unet_down_blocks_3_resnets_1_conv1"),
        ("lora_unet_output_blocks_11_1_proj_in", "lora_unet_up_blocks_3_attentions_2_proj_in"),
        ("diffusion_model.input_blocks.4.1.proj_in", "lora_unet_down_blocks_1_attentions_0_proj_in"),
        ("mid_block.attentions.0.proj_in", "lora_unet_mid_block_attentions_0_proj_in"),
        ("encoder.layers.3.mlp.fc2", "lora_te1_text_model_encoder_layers_3_mlp_fc2"),
        ("conv_in", "lora_unet_conv_in"),
        ("lora_unet_output_blocks_5_0_out_layers_0", "lora_unet_up_blocks_1_resnets_2_norm2"),
        ("model.diffusion_model.out.0", "lora_unet_conv_norm_out"),
        ("lora_unet__mid_block_attentions_0_proj_in", "lora_unet_mid_block_attentions_0_proj_in"),
        ("lycoris_mid_block_attentions_0_proj_in", "lora_unet_mid_block_attentions_0_proj_in"),
        ("oft_unet_middle_block_1_proj_in", "lora_unet_mid_block_attentions_0_proj_in"),
        ("text_encoders.clip_g.transformer.text_model.encoder.layers.0.mlp.fc1",
         "lora_te2_text_model_encoder_layers_0_mlp_fc1"),
        ("lora_te3_encoder_block_0_layer_0_SelfAttention_q", "lora_te3_encoder_block_0_layer_0_SelfAttention_q"),
        ("lora_te2_encoder_block_0_layer_0_SelfAttention_q", "lora_te3_encoder_block_0_layer_0_SelfAttention_q"),
        ("text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q",
         "lora_te3_encoder_block_0_layer_0_SelfAttention_q"),
        ("transformer.blocks.0.attn.to_q", None),
        ("diffusion_model.blocks.0.self_attn.q", None),
        ("transformer.transformer_blocks.0.attn.nothing", None),
        ("base_model.model.model.layers.0.q_proj", None),
    ],
)  # fmt: skip
def test_names_outside_the_small_model(module: str, canonical: str | None) -> None:
    assert layer(module) == canonical


@pytest.mark.parametrize("blocks", [loras.FLUX, loras.SD3], ids=["flux", "sd3"])
def test_whole_layers_and_slices_meet(blocks: list[loras.Block]) -> None:
    """Whatever the spelling, slices lie one behind the other in the rows of the layer that others hold whole."""
    for block in blocks:
        for spelled in loras.WHOLE_SPELLINGS.values():
            split = names.split(spelled(block.original)[0])
            assert split is not None
            place = names.slot_of(split[0])
            assert place is not None
            assert place.layer == f"lora_unet_{block.canonical}"
            assert place.rows((block.height, block.width)) is None
            assert place.is_swapped((block.height, block.width)) == block.swapped
        for spelled in loras.SPLIT_SPELLINGS.values():
            end = 0
            for name, height in block.pieces.items():
                split = names.split(spelled(name)[0])
                assert split is not None
                place = names.slot_of(split[0])
                assert place is not None
                assert place.layer == f"lora_unet_{block.canonical}"
                assert not place.is_swapped((height, block.width))
                if len(block.pieces) > 1:
                    assert place.rows((height, block.width)) == (end, end + height)
                    assert place.rows((height,)) == (end, end + height)
                end += height


def test_xlabs_has_q_k_and_v_of_a_single_block_without_mlp() -> None:
    place = names.slot_of("single_blocks.7.processor.qkv")
    assert place is not None
    assert place.layer == "lora_unet_single_transformer_blocks_7_qkv_mlp"
    assert place.rows((48, 16)) == (0, 48)
    with pytest.raises(ValueError, match="64 rows where 48 belong"):
        place.rows((64, 16))


RESNET = ("in_layers_2", "out_layers_3", "emb_layers_1", "skip_connection")
ATTENTION = tuple(f"{attn}_{to}" for attn in ("attn1", "attn2") for to in ("to_q", "to_k", "to_v", "to_out_0"))


def sdxl_sgm_names() -> set[str]:
    """Every layer of the SDXL UNet in sgm naming, written down from its structure; some skips do not exist."""

    def attention(block: str, depth: int) -> set[str]:
        tails = (*ATTENTION, "ff_net_0_proj", "ff_net_2")
        inner = {f"{block}_transformer_blocks_{i}_{tail}" for i in range(depth) for tail in tails}
        return {f"{block}_proj_in", f"{block}_proj_out", *inner}

    found = {"input_blocks_0_0", "out_2", "time_embed_0", "time_embed_2", "label_emb_0_0", "label_emb_0_2"}
    found |= {"input_blocks_3_0_op", "input_blocks_6_0_op", "output_blocks_2_2_conv", "output_blocks_5_2_conv"}
    resnets = [f"input_blocks_{i}_0" for i in (1, 2, 4, 5, 7, 8)] + [f"output_blocks_{i}_0" for i in range(9)]
    for block in [*resnets, "middle_block_0", "middle_block_2"]:
        with_skip = block.startswith("output") or block in ("input_blocks_4_0", "input_blocks_7_0")
        found |= {f"{block}_{part}" for part in (RESNET if with_skip else RESNET[:3])}
    for block, depth in (
        *((f"input_blocks_{i}_1", 2) for i in (4, 5)),
        *((f"input_blocks_{i}_1", 10) for i in (7, 8)),
        ("middle_block_1", 10),
        *((f"output_blocks_{i}_1", 10) for i in (0, 1, 2)),
        *((f"output_blocks_{i}_1", 2) for i in (3, 4, 5)),
    ):
        found |= attention(block, depth)
    return found


def test_sgm_names_are_exactly_the_layers_of_the_sdxl_unet() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            cross_attention_dim=2048,
            use_linear_projection=True,
            attention_head_dim=(5, 10, 20),
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
    layers = {
        f"lora_unet_{name.replace('.', '_')}"
        for name, layer in unet.named_modules()
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
    }
    assert {layer(f"lora_unet_{name}") for name in sdxl_sgm_names()} == layers


def test_sgm_names_agree_with_diffusers_own_conversion() -> None:
    spelled = {f"lora_unet_{name}" for name in sdxl_sgm_names()}
    for name in spelled:
        state = {f"{name}.lora_{side}.weight": torch.zeros(1) for side in ("up", "down")}
        config = SimpleNamespace(layers_per_block=2)
        state = _maybe_map_sgm_blocks_to_diffusers(copy.copy(state), config)
        converted, _ = _convert_non_diffusers_lora_to_diffusers(state)
        found = {layer(split[0]) for split in map(names.split, converted) if split}
        assert found == {layer(name)}, converted
