"""Every spelling of a module lands on one name."""

from __future__ import annotations

import pytest

from lib_nplora.files import names
from tests import loras


def layer(module: str) -> str | None:
    slot = names.slot_of(module)
    return slot and slot.layer


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
