"""Blocks and kinds, read from layers' names."""

from __future__ import annotations

import pytest

from lib_nplora.layers.place import block_of, in_model_order, in_usual_order, kind_of
from tests import loras


@pytest.mark.parametrize(
    ("name", "block", "kind"),
    [
        ("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", "down 1", "self q"),
        ("lora_unet_up_blocks_10_attentions_2_transformer_blocks_0_attn2_to_out_0", "up 10", "cross out"),
        ("lora_unet_mid_block_attentions_0_transformer_blocks_9_ff_net_0_proj", "mid", "feed-forward"),
        ("lora_unet_mid_block_resnets_0_time_emb_proj", "mid", "time"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in", "down 0", "projection"),
        ("lora_unet_down_blocks_0_resnets_1_conv1", "down 0", "convolution"),
        ("lora_unet_up_blocks_1_upsamplers_0_conv", "up 1", "convolution"),
        ("lora_unet_conv_in", "other", "convolution"),
        ("lora_te1_text_model_encoder_layers_0_self_attn_k_proj", "text 1", "self k"),
        ("lora_te2_text_model_encoder_layers_31_mlp_fc1", "text 2", "feed-forward"),
        ("lora_unet_transformer_blocks_4_attn_qkv[0:3072]", "double 4", "self qkv"),
        ("lora_unet_transformer_blocks_18_attn_add_qkv", "double 18", "text qkv"),
        ("lora_unet_transformer_blocks_18_attn_to_add_out", "double 18", "text out"),
        ("lora_unet_transformer_blocks_0_ff_context_net_2", "double 0", "feed-forward"),
        ("lora_unet_single_transformer_blocks_37_qkv_mlp", "single 37", "self qkv"),
        ("lora_unet_single_transformer_blocks_37_proj_out", "single 37", "projection"),
        ("something else", "other", "other"),
    ],
)
def test_a_name_tells_block_and_kind(name, block, kind):
    assert (block_of(name), kind_of(name)) == (block, kind)


def test_blocks_stand_in_the_order_of_the_model():
    found = ["single 0", "double 10", "double 2", "other", "up 0", "mid", "down 10", "down 9", "text 2", "text 1"]
    expected = ["text 1", "text 2", "down 9", "down 10", "mid", "up 0", "double 2", "double 10", "single 0", "other"]
    assert in_model_order(found) == expected


def test_kinds_stand_in_the_usual_order():
    assert in_usual_order({"other", "cross q", "self out", "self q"}) == ["self q", "self out", "cross q", "other"]


def test_few_layers_of_a_unet_are_of_an_unknown_kind():
    unknown = {layer.canonical for layer in loras.SD1 if kind_of(layer.canonical) == "other"}
    assert not unknown
