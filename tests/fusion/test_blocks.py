"""Strengths by block over all layers of a model: each layer against the dense formula, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_nplora.fusion.fused import FusedLora
from lib_nplora.fusion.outcome import Outcome
from lib_nplora.fusion.walk import fingerprint, fuse, fuse_layers
from lib_nplora.layers.block import Block
from lib_nplora.layers.by_block import ByBlock
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.cache import ByteLru
from lib_nplora.methods.table import methods
from lib_nplora.methods.texts import HARD
from lib_nplora.request.request import FusionRequest, Source
from lib_nplora.request.tag import parse_tag

from .. import reference
from ..matrices import random_delta
from ..methods.layers import FOR_ANY_LAYER
from ..reference import interference, k_lora

MODEL = {
    ModuleKey("lora_te1_text_model_encoder_layers_0_mlp_fc1", "te"): "te1",
    ModuleKey("lora_te2_text_model_encoder_layers_9_self_attn_q_proj", "te"): "te2",
    ModuleKey("lora_unet_time_embedding_linear_1", "unet"): "in",
    ModuleKey("lora_unet_conv_in", "unet"): "in0",
    ModuleKey("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", "unet"): "in4",
    ModuleKey("diffusion_model.input_blocks.5.1.transformer_blocks.0.attn2.to_v.weight", "unet"): "in5",
    ModuleKey("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0", "unet"): "mid",
    ModuleKey("diffusion_model_middle_block_1_proj_in", "unet"): "mid",
    ModuleKey("lora_unet_up_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", "unet"): "out0",
    ModuleKey("lora_unet_up_blocks_0_attentions_1_transformer_blocks_0_attn2_to_k", "unet"): "out1",
    ModuleKey("lora_unet_up_blocks_1_upsamplers_0_conv", "unet"): "out5",
    ModuleKey("lora_unet_conv_out", "unet"): "out",
}
"""A layer of every kind of block of Stable Diffusion -> the block that it stands in."""


def lora(name: str, rank: int, seed: int) -> LoraWeights:
    deltas = {key: random_delta(14 + i % 3, 18, rank, seed + 2 * i) for i, key in enumerate(MODEL)}
    return LoraWeights(name, name, deltas)


CONTENT, STYLE = lora("dog", 3, 1), lora("vangogh", 4, 101)

Strengths = Mapping[str, float]
"""Block as text, or empty for the usual -> the strength there."""

asked_blocks = st.sampled_from(["te", "te1", "te2", "in", "in0", "in4", "in5", "mid", "out", "out0", "out1", "out5"])


def strengths(values: st.SearchStrategy[float]) -> st.SearchStrategy[Strengths]:
    return st.builds(lambda usual, some: {"": usual, **some}, values, st.dictionaries(asked_blocks, values, max_size=5))


weights = strengths(st.sampled_from([1.0, 0.0, 0.6, -1.3, 2.0]))
mus = strengths(st.sampled_from([0.5, 0.0, 2.0, HARD]))


def at(strength: Strengths, block: str) -> float:
    """The strength under the nearest name: the block's own, its label, none."""
    names = block, block.rstrip("0123456789"), ""
    return next(strength[name] for name in names if name in strength)


def by_block(strength: Strengths) -> ByBlock[float]:
    pairs = ((Block.parse(name), value) for name, value in strength.items() if name)
    return ByBlock(strength[""], tuple(sorted(pairs, key=lambda pair: pair[0])))


def source(name: str, weight: Strengths) -> Source:
    return Source(name, weight[""], weight[""], by_block(weight).exceptions)


def asked(
    c: Strengths, s: Strengths, mu: Strengths | None = None, method: str = "np", te: float = 1.0, **given: Any
) -> FusionRequest:
    given = given if mu is None else {**given, "mu": by_block(mu)}
    return FusionRequest.of((source("dog", c),), (source("vangogh", s),), method, te, **given)


def run(request: FusionRequest, content: LoraWeights = CONTENT, style: LoraWeights = STYLE) -> FusedLora:
    return fuse(request, [content], [style], ByteLru(0))


def exact(delta) -> np.ndarray:
    return delta.dense().double().numpy()


def formula(method: str, content: np.ndarray, style: np.ndarray, c: float, s: float, mu: float) -> np.ndarray:
    if method == "reverse":
        return reference.fused([(s, style)], [(c, content)], mu)
    if method == "uspace":
        return reference.fused([(c, content.T)], [(s, style.T)], mu).T
    return reference.fused([(c, content)], [(s, style)], {"hard": HARD, "direct": 0.0}.get(method, mu))


def test_the_layers_stand_where_they_should():
    assert {key: str(key.place.block) for key in MODEL} == MODEL


@pytest.mark.parametrize("method", ["np", "hard", "direct", "reverse", "uspace"])
@settings(max_examples=15)
@given(c=weights, s=weights, mu=mus, te=st.sampled_from([1.0, 0.5, 0.0]))
def test_every_layer_has_the_strengths_of_its_block(method, c, s, mu, te):
    fused = run(asked(c, s, mu, method, te))
    for key, block in MODEL.items():
        part = te if key.part == "te" else 1.0
        of_content, of_style = part * at(c, block), part * at(s, block)
        if of_content == of_style == 0:
            assert key not in fused.deltas
            assert fused.summary.layers[key].outcome is Outcome.LEFT_OUT
            continue
        content, style = exact(CONTENT.deltas[key]), exact(STYLE.deltas[key])
        expected = formula(method, content, style, of_content, of_style, at(mu, block))
        scale = np.linalg.norm(of_content * content) + np.linalg.norm(of_style * style)
        assert np.linalg.norm(exact(fused.deltas[key]) - expected) < 1e-5 * scale, key
        assert fused.summary.layers[key].outcome is Outcome.FUSED
        energy = np.linalg.norm(of_content * content) ** 2
        assert fused.summary.layers[key].content_energy == pytest.approx(energy, rel=1e-5)


@settings(max_examples=10)
@given(mu=mus)
def test_what_is_removed_is_told_by_the_mu_of_the_block(mu):
    fused = run(asked({"": 1.0}, {"": 1.0}, mu))
    for key, block in MODEL.items():
        expected = interference.row(exact(CONTENT.deltas[key]), exact(STYLE.deltas[key]), at(mu, block))
        assert fused.summary.layers[key].removed == pytest.approx(expected["removed"], abs=1e-6)


@pytest.mark.parametrize("method", FOR_ANY_LAYER)
@settings(max_examples=4)
@given(c=weights, s=weights)
def test_a_weight_of_a_block_is_what_it_would_be_for_all(method, c, s):
    """Whatever the method makes of a layer, it makes it of the weights there. Who wins it is another matter."""
    scope = {"scope": "all"} if methods()[method].parameter("scope") else {}
    fused = run(asked(c, s, method=method, **scope))
    whole: dict[tuple[float, float], FusedLora] = {}
    for key, block in MODEL.items():
        pair = at(c, block), at(s, block)
        if pair not in whole:
            whole[pair] = run(asked({"": pair[0]}, {"": pair[1]}, method=method, **scope))
        for found, expected in ((fused.deltas, whole[pair].deltas), (fused.rivals, whole[pair].rivals)):
            assert (key in found) == (key in expected)
            assert key not in found or torch.equal(found[key].dense(), expected[key].dense())
        assert fused.summary.layers[key] == whole[pair].summary.layers[key]


@pytest.mark.parametrize("method", FOR_ANY_LAYER)
def test_a_block_at_0_is_not_in_the_deltas_at_all(method):
    fused = run(asked({"": 1.0, "mid": 0.0, "out1": 0.0}, {"": 1.0, "mid": 0.0, "out": 0.0}, method=method))
    gone = {key for key, block in MODEL.items() if block in ("mid", "out1")}
    assert not gone & (fused.deltas.keys() | fused.rivals.keys())
    assert not fused.schedule or not gone & fused.schedule.contests.keys()
    assert {fused.summary.layers[key].outcome for key in gone} == {Outcome.LEFT_OUT}
    left = MODEL.keys() - gone if method != "blora" else {key for key, block in MODEL.items() if block == "out0"}
    assert fused.deltas.keys() == left


def test_a_layer_that_one_side_holds_at_0_is_not_in_the_deltas_either():
    (lone, *shared), mid = MODEL, [key for key, block in MODEL.items() if block == "mid"]
    style = replace(STYLE, deltas={key: STYLE.deltas[key] for key in shared})
    fused = run(asked({"": 1.0, "te1": 0.0}, {"": 1.0}), style=style)
    assert lone not in fused.deltas
    assert fused.summary.layers[lone].outcome is Outcome.LEFT_OUT
    weightless = run(asked({"": 0.0, "mid": 1.0}, {"": 0.0}), style=style)
    assert list(weightless.deltas) == mid


def test_several_loras_a_side_have_their_own_blocks():
    contents = [CONTENT, lora("cat", 2, 301)]
    sides = [{"": 1.0, "out": 0.0}, {"": 0.5, "in": 0.0, "in5": -1.0}], [{"": 0.7, "mid": 2.0}]
    request = FusionRequest.of(
        (source("dog", sides[0][0]), source("cat", sides[0][1])), (source("vangogh", sides[1][0]),), mu=2.0
    )
    fused = fuse(request, contents, [STYLE], ByteLru(0))
    for key, block in MODEL.items():
        weighed = [(at(side, block), exact(lora.deltas[key])) for side, lora in zip(sides[0], contents)]
        expected = reference.fused(weighed, [(at(sides[1][0], block), exact(STYLE.deltas[key]))], 2.0)
        assert reference.error(fused.deltas[key].dense(), expected) < 1e-5


def test_slices_stand_where_their_layer_does():
    """A content that has q, k and v one by one, a style that has them whole; in two blocks of a transformer."""
    names = {block: f"lora_unet_double_blocks_{block[6:]}_img_attn_qkv" for block in ("double3", "double4")}
    rows = list(pairwise((0, 8, 16, 24)))
    parts = {
        ModuleKey(name, "unet", span): random_delta(8, 18, 2, 7 * i + span[0])
        for i, name in enumerate(names.values())
        for span in rows
    }
    whole = {ModuleKey(name, "unet"): random_delta(24, 18, 4, 70 + i) for i, name in enumerate(names.values())}
    c, mu = {"": 1.0, "double3": 0.4}, {"": 0.5, "double4": HARD, "single": 0.0}
    fused = run(asked(c, {"": 1.0}, mu), LoraWeights("dog", "d", parts), LoraWeights("vangogh", "v", whole))
    assert fused.deltas.keys() == parts.keys()
    for block, name in names.items():
        style = exact(whole[ModuleKey(name, "unet")])
        v = reference.basis([style])
        for start, stop in rows:
            key = ModuleKey(name, "unet", (start, stop))
            expected = reference.fused_layer(at(c, block) * exact(parts[key]), style[start:stop], v, at(mu, block))
            assert reference.error(fused.deltas[key].dense(), expected) < 1e-5


@pytest.mark.parametrize("method", ["klora", "klora*"])
@settings(max_examples=15)
@given(c=weights, s=weights)
def test_contests_weigh_what_their_block_does(method, c, s):
    """A layer that only one side has a weight for is no contest, and does not count for the others either."""
    fused = run(asked(c, s, method=method, scope="all"))
    pairs = {
        key: k_lora.Pair(at(c, block) * exact(CONTENT.deltas[key]), at(s, block) * exact(STYLE.deltas[key]), 3, 4)
        for key, block in MODEL.items()
        if key.part == "unet" and at(c, block) and at(s, block)
    }
    beta = 1.3 if method == "klora*" else 0.5
    found = fused.schedule.letters(12) if fused.schedule else {}
    assert found == k_lora.letters(pairs, 12, 1.5, beta, method == "klora*")


def test_layers_are_inspected_by_block():
    request = asked({"": 1.0, "mid": 0.0}, {"": 1.0, "mid": 0.0, "in4": 2.0}, {"": 0.5, "out": HARD})
    rows = {layer.key: layer for layer in fuse_layers(request, [CONTENT], [STYLE], ByteLru(0), inspected=True)}
    for key, block in MODEL.items():
        if block == "mid":
            assert rows[key].interference is None
            assert rows[key].delta is None
            continue
        c, s = exact(CONTENT.deltas[key]), (2.0 if block == "in4" else 1.0) * exact(STYLE.deltas[key])
        expected = interference.row(c, s, HARD if block.startswith("out") else 0.5)
        for name in ("overlap", "removed", "norm_ratio"):
            assert getattr(rows[key].interference, name) == pytest.approx(expected[name], rel=1e-4, abs=1e-6)


# What stands for it


def print_of(tag: str) -> str:
    return fingerprint(parse_tag(f"dog:vangogh:{tag}".split(":")), [CONTENT], [STYLE])


def test_every_exception_has_its_own_fingerprint():
    tags = [
        *("0.5", "0.5,mid@2", "0.5,mid@hard", "0.5,in@2", "0.5,in4@2", "0.5,in5@2", "2,mid@0.5"),
        *("c=1,mid@2", "c=1,mid@0", "c=1,in@2", "s=1,mid@2", "c=1,mid@2:s=1,mid@2", "0.5,mid@2:c=1,mid@2"),
        *("method=reverse", "0.5,mid@2:method=reverse", "method=klora", "method=klora:c=1,mid@2"),
    ]
    assert len({print_of(tag) for tag in tags}) == len(tags)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.5,mid@2,in@1", "0.5,in@1,MID@2.0"),
        ("mid@2", "0.5,mid@2"),
        ("c=mid@2", "c=1,mid@2"),
        ("0.5,mid@2:method=klora", "method=klora"),
        ("0.5,mid@2:method=hard", "3:method=hard"),
    ],
)
def test_what_means_the_same_has_one_fingerprint(one, other):
    assert print_of(one) == print_of(other)
