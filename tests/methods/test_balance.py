"""Weights that a fusion chooses itself."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lib_nplora.fusion.fused import FusedLora
from lib_nplora.fusion.outcome import Outcome
from lib_nplora.fusion.walk import fuse
from lib_nplora.layers.block import Block
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.cache import ByteLru
from lib_nplora.maths.delta import Delta
from lib_nplora.maths.dense import DenseDelta
from lib_nplora.methods.table import readers
from lib_nplora.request.request import FusionRequest, Source

from ..matrices import randn, random_delta
from ..reference import balance, k_lora, np_lora
from .layers import FOR_ANY_LAYER

MODES = ("off", "layer", "down", "whole")
NAMES = (
    "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
    "mid_block_resnets_0_conv1",
    "up_blocks_1_upsamplers_0_conv",
)
KEYS = [ModuleKey(name, "unet") for name in NAMES]
TEXT = ModuleKey("lora_te1_text_model_encoder_layers_0_mlp_fc1", "te")


def of(name: str, *deltas: Delta, keys: list[ModuleKey] = KEYS) -> LoraWeights:
    return LoraWeights(name, f"digest of {name}", dict(zip(keys, deltas)))


def conv(seed: int, scale: float) -> Delta:
    return replace(random_delta(12, 27, 3, seed, scale), kernel=(3, 3))


def content() -> LoraWeights:
    """A linear layer, a convolution and one without factors, of different strengths."""
    return of("dog", random_delta(24, 32, 3, 1, 0.1), conv(3, 2.0), DenseDelta(randn(16, 8, seed=5), (16, 8)))


def style() -> LoraWeights:
    return of("vangogh", random_delta(24, 32, 4, 11), conv(13, 0.3), random_delta(16, 8, 2, 15, 5.0))


def exact(lora: LoraWeights) -> list[np.ndarray]:
    return [delta.dense().double().numpy() for delta in lora.deltas.values()]


def run(
    c: LoraWeights | list[LoraWeights], s: LoraWeights | list[LoraWeights], method: str = "direct", **given
) -> FusedLora:
    contents, styles = ([side] if isinstance(side, LoraWeights) else side for side in (c, s))
    weights = given.pop("weights", {})
    sources = [[Source(lora.name, *(weights.get(lora.name, 1.0),) * 2) for lora in side] for side in (contents, styles)]
    request = FusionRequest.of(tuple(sources[0]), tuple(sources[1]), method, **given)
    return fuse(request, contents, styles, ByteLru(0))


def close(found: Delta, expected: np.ndarray, within: float = 1e-6) -> bool:
    return np.linalg.norm(found.dense().double().numpy() - expected) <= within * np.linalg.norm(expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("c", "s"), [(1.0, 1.0), (0.7, -1.3)])
def test_every_kind_of_layer_is_balanced_before_the_user_s_weights(mode, c, s):
    fused = run(content(), style(), balance=mode, weights={"dog": c, "vangogh": s})
    expected = balance.weights(mode, exact(content()), exact(style()))
    for delta, dc, ds, (wc, ws) in zip(fused.deltas.values(), exact(content()), exact(style()), expected, strict=True):
        assert close(delta, c * wc * dc + s * ws * ds)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mu", [0.5, math.inf])
def test_np_projects_what_is_balanced(mode, mu):
    fused = run(content(), style(), "np", balance=mode, mu=mu)
    expected = balance.weights(mode, exact(content()), exact(style()))
    for delta, dc, ds, (wc, ws) in zip(fused.deltas.values(), exact(content()), exact(style()), expected, strict=True):
        assert close(delta, np_lora.fused([(wc, dc)], [(ws, ds)], mu), 1e-5)


@pytest.mark.parametrize("method", [one.name for one in readers("balance") if one.name in FOR_ANY_LAYER])
def test_off_is_what_it_was(method):
    plain, off = run(content(), style(), method), run(content(), style(), method, balance="off")
    assert plain.fingerprint == off.fingerprint
    for key, delta in plain.deltas.items():
        assert torch.equal(delta.dense(), off.deltas[key].dense())
        assert plain.summary.layers[key].weights == (1.0, 1.0)


@pytest.mark.parametrize("mode", ["layer", "down", "whole"])
@pytest.mark.parametrize("side", ["dog", "vangogh"])
def test_a_lora_that_is_scaled_fuses_in_the_same_direction(mode, side):
    """Scaled is one side, by 10: both sides' shares stay, and the sum keeps its direction."""
    plain = run(content(), style(), balance=mode)
    pair = [
        replace(lora, deltas={key: delta.scaled(10.0) for key, delta in lora.deltas.items()})
        if lora.name == side
        else lora
        for lora in (content(), style())
    ]
    scaled = run(*pair, balance=mode)
    for key, delta in plain.deltas.items():
        one, other = (found.dense().double().flatten() for found in (delta, scaled.deltas[key]))
        assert float(one @ other / one.norm() / other.norm()) > 1 - 1e-9


def test_both_sides_meet_at_the_geometric_mean():
    weights = [layer.weights for layer in run(content(), style(), balance="layer").summary.layers.values()]
    for dc, ds, (wc, ws) in zip(exact(content()), exact(style()), weights, strict=True):
        mean = math.sqrt(np.linalg.norm(dc) * np.linalg.norm(ds))
        assert wc * np.linalg.norm(dc) == pytest.approx(mean, rel=1e-6)
        assert ws * np.linalg.norm(ds) == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_side_of_zeros_changes_nothing(mode):
    nothing = of("vangogh", *(delta.scaled(0.0) for delta in style().deltas.values()))
    for delta, dc in zip(run(content(), nothing, balance=mode).deltas.values(), exact(content()), strict=True):
        assert close(delta, dc)
    for delta, dc in zip(run(nothing, content(), balance=mode).deltas.values(), exact(content()), strict=True):
        assert close(delta, dc)


@pytest.mark.parametrize("mode", ["layer", "down", "whole"])
def test_a_layer_that_one_side_has_is_left_alone(mode):
    lone = replace(style(), deltas=dict(list(style().deltas.items())[:2]))
    fused = run(content(), lone, balance=mode)
    assert fused.summary.layers[KEYS[2]].outcome is Outcome.CONTENT_ONLY
    assert close(fused.deltas[KEYS[2]], exact(content())[2])
    expected = balance.weights(mode, exact(content())[:2], exact(lone))
    assert [fused.summary.layers[key].weights for key in KEYS[:2]] == [
        pytest.approx(pair, rel=1e-6) for pair in expected
    ]


def test_several_loras_of_a_side_count_together_by_their_weights():
    other = of("cat", random_delta(24, 32, 2, 21), conv(23, 1.0), random_delta(16, 8, 2, 25))
    fused = run([content(), other], style(), balance="layer", weights={"dog": 0.5, "cat": -0.25})
    sums = [dc - 0.5 * do for dc, do in zip(exact(content()), exact(other))]
    expected = balance.weights("layer", sums, exact(style()))
    for delta, dc, ds, (wc, ws) in zip(fused.deltas.values(), sums, exact(style()), expected, strict=True):
        assert close(delta, 0.5 * wc * dc + ws * ds)


def test_text_encoders_are_balanced_like_the_rest():
    keys = [TEXT, KEYS[0]]
    pair = [of(name, random_delta(24, 32, 3, seed, scale), random_delta(24, 32, 3, seed + 2), keys=keys)
            for name, seed, scale in (("dog", 1, 4.0), ("vangogh", 11, 1.0))]  # fmt: skip
    fused = run(*pair, balance="layer")
    (wc, ws), _ = balance.weights("layer", exact(pair[0]), exact(pair[1]))
    assert close(fused.deltas[TEXT], wc * exact(pair[0])[0] + ws * exact(pair[1])[0])


@pytest.mark.parametrize("mode", MODES)
def test_klora_weighs_what_is_balanced(mode):
    keys = [ModuleKey(f"down_blocks_{i}_attentions_0_transformer_blocks_0_attn1_to_q", "unet") for i in range(3)]
    dog = of("dog", *(random_delta(24, 32, 3, 10 * i, 0.2 + i) for i in range(3)), keys=keys)
    vangogh = of("vangogh", *(random_delta(24, 32, 3, 100 + 10 * i) for i in range(3)), keys=keys)
    fused = run(dog, vangogh, "klora", balance=mode)
    weights = balance.weights(mode, exact(dog), exact(vangogh))
    pairs = {
        key: k_lora.Pair(wc * dc, ws * ds, 3, 3)
        for key, dc, ds, (wc, ws) in zip(keys, exact(dog), exact(vangogh), weights)
    }
    assert fused.schedule.letters(20) == k_lora.letters(pairs, 20, 1.5, 0.5, False)
    for key, ds, (_, ws) in zip(keys, exact(vangogh), weights):
        assert close(fused.rivals[key], ws * ds)


def test_slices_of_a_layer_are_balanced_one_by_one():
    """The content holds q, k and v in one piece, the style in three."""
    whole = KEYS[0]
    slices = [replace(whole, rows=(8 * i, 8 * i + 8)) for i in range(3)]
    dog = of("dog", random_delta(24, 32, 3, 1), keys=[whole])
    vangogh = of("vangogh", *(random_delta(8, 32, 2, 11 + 2 * i, 0.3 + i) for i in range(3)), keys=slices)
    fused = run(dog, vangogh, balance="layer")
    parts = [exact(dog)[0][8 * i : 8 * i + 8] for i in range(3)]
    for key, dc, ds, (wc, ws) in zip(slices, parts, exact(vangogh), balance.weights("layer", parts, exact(vangogh))):
        assert close(fused.deltas[key], wc * dc + ws * ds)


def test_exceptions_by_block_multiply_too():
    request = FusionRequest.of(
        (Source("dog", exceptions=((Block("mid"), 0.5),)),), (Source("vangogh"),), "direct", balance="layer"
    )
    fused = fuse(request, [content()], [style()], ByteLru(0))
    expected = balance.weights("layer", exact(content()), exact(style()))
    for at, (dc, ds, (wc, ws)) in enumerate(zip(exact(content()), exact(style()), expected)):
        assert close(fused.deltas[KEYS[at]], (0.5 if at == 1 else 1.0) * wc * dc + ws * ds)
