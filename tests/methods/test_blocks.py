"""B-LoRA."""

from __future__ import annotations

import pytest

from lib_nplora.errors import RequestError
from lib_nplora.fusion.outcome import Outcome
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.methods.blocks import owner

from .. import reference
from ..matrices import random_delta
from .layers import exact, request, run

BLOCKS = {
    "content": [
        "lora_unet_up_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "up_blocks.0.attentions.0.transformer_blocks.9.ff.net.0.proj",
        "up_blocks_0_attentions_0_proj_in",
        "lora_unet_output_blocks_0_1_transformer_blocks_0_attn1_to_q",
        "diffusion_model_output_blocks_0_1_transformer_blocks_3_attn2_to_v",
        "diffusion_model.output_blocks.0.1.proj_out.weight",
    ],
    "style": [
        "lora_unet_up_blocks_0_attentions_1_transformer_blocks_0_attn1_to_q",
        "up_blocks.0.attentions.1.transformer_blocks.9.ff.net.0.proj",
        "lora_unet_output_blocks_1_1_transformer_blocks_0_attn1_to_q",
        "diffusion_model_output_blocks_1_1_transformer_blocks_3_attn2_to_v",
        "diffusion_model.output_blocks.1.1.proj_out.weight",
    ],
    None: [
        "lora_unet_up_blocks_0_attentions_2_transformer_blocks_0_attn1_to_q",
        "lora_unet_up_blocks_0_resnets_0_conv1",
        "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
        "lora_unet_up_blocks_1_attentions_1_transformer_blocks_0_attn1_to_q",
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "diffusion_model_output_blocks_2_1_transformer_blocks_0_attn1_to_q",
        "diffusion_model_output_blocks_10_1_transformer_blocks_0_attn1_to_q",
        "diffusion_model_output_blocks_11_1_transformer_blocks_0_attn1_to_q",
        "diffusion_model_output_blocks_0_0_in_layers_2",
        "diffusion_model_input_blocks_0_1_proj_in",
        "lora_unet_mid_block_attentions_0_proj_in",
    ],
}


@pytest.mark.parametrize(("side", "name"), [(side, name) for side, names in BLOCKS.items() for name in names])
def test_blocks_of_b_lora(side, name):
    assert owner(ModuleKey(name, "unet")) == side
    assert owner(ModuleKey(name, "te")) is None


def blocks(seed: int, names: list[str]) -> LoraWeights:
    parts = {ModuleKey(name, "unet"): random_delta(8, 9, 2, seed + i) for i, name in enumerate(names)}
    text = {ModuleKey(BLOCKS["content"][0], "te"): random_delta(8, 9, 2, seed + 50)}
    return LoraWeights(f"lora {seed}", f"digest {seed}", {**parts, **text})


def test_blora_holds_each_block_s_owner_alone_and_nothing_else():
    names = [names[0] for names in BLOCKS.values()]
    content, style = blocks(1, names), blocks(100, names)
    fused = run(request("blora", 0.7, 1.3), content, style)
    keys = {side: ModuleKey(names[0], "unet") for side, names in BLOCKS.items()}
    assert set(fused.deltas) == {keys["content"], keys["style"]}
    for side, weights, strength in (("content", content, 0.7), ("style", style, 1.3)):
        expected = strength * exact(weights.deltas[keys[side]])
        assert reference.error(exact(fused.deltas[keys[side]]), expected) < 1e-6
    left_out = {key for key, report in fused.summary.layers.items() if report.outcome is Outcome.LEFT_OUT}
    assert left_out == {keys[None], ModuleKey(BLOCKS["content"][0], "te")}
    assert "2 left out" in str(fused.summary)


def test_a_pair_without_b_lora_s_blocks_is_refused():
    sd15 = [
        "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
        "lora_unet_mid_block_attentions_0_proj_in",
    ]
    with pytest.raises(
        RequestError, match="method=blora takes the content from one block of SDXL, and 'lora 1' has no"
    ):
        run(request("blora"), blocks(1, sd15), blocks(100, sd15))
    with pytest.raises(
        RequestError, match="method=blora takes the style from one block of SDXL, and 'lora 100' has no"
    ):
        run(request("blora"), blocks(1, BLOCKS["content"]), blocks(100, BLOCKS["content"]))
    run(request("blora"), blocks(1, BLOCKS["content"]), blocks(100, BLOCKS["style"]))
