"""The pieces of K-LoRA's selection: sums of the largest, scales, and which layers hold attention."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_nplora.maths.dense import DenseDelta
from lib_nplora.methods.selection import (
    SCOPES,
    Contest,
    Importance,
    Schedule,
    content_wins,
    importance,
    is_attention,
    rank_of,
    rising,
    sawtooth,
    top_k,
    top_sum,
)
from lib_nplora.methods.table import METHODS

from .. import loras
from ..matrices import random_delta


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 3000), st.data(), st.integers(0, 2**20), st.sampled_from(["any", "zeros", "few values", "decades"])
)
def test_top_sum_is_that_of_a_full_sort(n, data, seed, kind):
    k = data.draw(st.one_of(st.integers(1, n + 5), st.integers(1, 1 + n // 16)))
    values = torch.randn(n, generator=torch.Generator().manual_seed(seed)).abs()
    if kind == "zeros":
        values[values < 1] = 0
    elif kind == "few values":
        values = (values * 2).round()
    elif kind == "decades":
        values = 10 ** (4 * values - 6)
    expected = math.fsum(sorted(values.tolist(), reverse=True)[:k])
    assert top_sum(values, k) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("n", [1, 2, 17, 1000, 4096, 100_000])
@pytest.mark.parametrize("k", [1, 4, 64, 256])
def test_top_sum_finds_the_largest_wherever_they_are(n, k):
    """All in one group, one in each group, at either end, and in what is left over behind the groups."""
    for where in (slice(0, k), slice(max(n - k, 0), n), slice(0, n, max(n // k, 1)), slice(n // 2, n // 2 + k)):
        values = torch.full((n,), 0.5)
        values[where] = 2.0
        count = min(int((values == 2).sum()), k)
        assert top_sum(values, k) == 2 * count + 0.5 * (min(k, n) - count)
    assert top_sum(torch.zeros(n), k) == 0


def test_top_sum_leaves_its_input_alone():
    values = torch.rand(5000)
    before = values.clone()
    top_sum(values, 3)
    assert torch.equal(values, before)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 8), st.integers(1, 40), st.integers(0, 2**20))
def test_importance_weighs_magnitudes(out, in_, rank, k, seed):
    delta = random_delta(out, in_, rank, seed)
    found = importance(delta, k)
    magnitudes = delta.dense().abs().flatten().double().sort(descending=True).values
    assert found.top == pytest.approx(float(magnitudes[:k].sum()), rel=1e-12)
    assert found.total == pytest.approx(float(magnitudes.sum()), rel=1e-12)
    for weight in (-0.7, 0.0, 2.0):
        scaled, heavy = found.scaled(weight), importance(delta.scaled(weight), k)
        assert (scaled.top, scaled.total) == pytest.approx((heavy.top, heavy.total), rel=1e-5)


def test_k_is_the_product_of_the_ranks():
    assert top_k(4, 8) == 32
    assert rank_of(random_delta(12, 20, 3, 0)) == 3
    assert rank_of(DenseDelta.of(torch.ones(12, 20))) == 12


@given(st.integers(1, 500), st.data())
def test_scales(steps, data):
    step = data.draw(st.integers(0, steps - 1))
    s = Fraction(3, 2) * Fraction(step, steps) + Fraction(1, 2)
    assert rising(1.5, 0.5, step, steps) == pytest.approx(float(s), rel=1e-15)
    assert rising(1.5, 0.5, 0, steps) == 0.5
    assert 0 <= sawtooth(1.5, 1.3, step, steps) < 1.5
    assert sawtooth(1.5, 0.0, step, steps) == rising(1.5, 0.0, step, steps)


def test_a_tie_is_the_contents():
    one = Contest(Importance(3, 9), Importance(4, 9))
    assert content_wins(one, 1.0, 0.75)
    assert content_wins(one, 0.5, 1.5)
    assert not content_wins(one, 1.0, 0.7500000000000001)


def test_gamma_is_taken_over_all_layers():
    contests = {
        "a": Contest(Importance(1, 10), Importance(1, 1)),
        "b": Contest(Importance(1, 2), Importance(1, 3)),
    }
    assert Schedule(contests, METHODS["klora"].rule(METHODS["klora"].settings(0.5))).gamma == 12 / 4


ATTENTION = [
    "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0",
    "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_v",
    "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0",
    "diffusion_model_input_blocks_1_1_transformer_blocks_0_attn1_to_q",
    "diffusion_model_middle_block_1_transformer_blocks_0_attn2_to_out_0",
    "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
    "diffusion_model.output_blocks.0.1.transformer_blocks.9.attn2.to_out.0.weight",
    "diffusion_model.double_blocks.0.img_attn.qkv.weight",
    "diffusion_model.double_blocks.0.txt_attn.proj.weight",
    "diffusion_model.single_blocks.0.linear1.weight",
    "lora_unet_double_blocks_18_img_attn_proj",
    "lora_unet_single_blocks_37_linear1",
    "double_blocks.0.img_attn.qkv",
    "single_blocks.0.linear1",
    "single_transformer_blocks_1_qkv_mlp",
    "transformer_blocks_0_attn_qkv",
    "transformer_blocks_0_attn_add_qkv",
    "diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
    "diffusion_model.joint_blocks.0.context_block.attn.proj.weight",
    "joint_blocks.0.x_block.attn2.qkv",
    "transformer_blocks.0.attn.to_q",
    "transformer_blocks.0.attn.add_q_proj",
    "transformer_blocks.0.attn.to_add_out",
    "single_transformer_blocks.0.attn.to_q",
    "diffusion_model.layers.0.attention.qkv.weight",
    "layers.0.attention.to_out.0",
    "lora_unet_layers_0_attention_qkv",
]

OTHER = [
    "lora_unet_down_blocks_1_attentions_0_proj_in",
    "lora_unet_down_blocks_1_attentions_0_proj_out",
    "down_blocks.1.attentions.0.proj_in",
    "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_ff_net_0_proj",
    "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_ff_net_2",
    "lora_unet_down_blocks_0_resnets_0_conv1",
    "lora_unet_down_blocks_0_resnets_0_time_emb_proj",
    "lora_unet_down_blocks_0_downsamplers_0_conv",
    "lora_unet_conv_in",
    "lora_unet_time_embedding_linear_1",
    "diffusion_model_input_blocks_1_1_proj_in",
    "diffusion_model_input_blocks_1_0_in_layers_2",
    "diffusion_model.time_embed.0.weight",
    "diffusion_model.double_blocks.0.img_mlp.0.weight",
    "diffusion_model.double_blocks.0.img_mod.lin.weight",
    "diffusion_model.single_blocks.0.linear2.weight",
    "diffusion_model.single_blocks.0.modulation.lin.weight",
    "single_blocks.0.linear10",
    "diffusion_model.joint_blocks.0.x_block.mlp.fc1.weight",
    "diffusion_model.joint_blocks.0.context_block.adaLN_modulation.1.weight",
    "diffusion_model.layers.0.feed_forward.w1.weight",
    "single_transformer_blocks.0.proj_mlp",
    "single_transformer_blocks.0.proj_out",
    "final_layer.linear",
    "time_text_embed_guidance_embedder_linear_1",
]


@pytest.mark.parametrize("layer", ATTENTION)
def test_attention(layer):
    assert is_attention(layer)


@pytest.mark.parametrize("layer", OTHER)
def test_what_is_no_attention(layer):
    assert not is_attention(layer)
    assert SCOPES["all"](layer)


@pytest.mark.parametrize("block", [*loras.FLUX, *loras.SD3], ids=lambda block: block.original)
def test_a_layer_is_the_same_by_its_original_name_and_by_ours(block):
    assert is_attention(block.original) == is_attention(block.canonical)
    assert is_attention(block.original.replace(".", "_")) == is_attention(block.canonical)
