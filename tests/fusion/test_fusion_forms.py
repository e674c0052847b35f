"""Fusions of what is no pair of factors for a whole layer: matrices, slices of rows, norms and biases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_nplora.errors import MismatchError
from lib_nplora.fusion.outcome import Outcome
from lib_nplora.fusion.walk import fuse, layers
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import DeltaMap, LoraWeights
from lib_nplora.maths.cache import ByteLru
from lib_nplora.maths.delta import Delta
from lib_nplora.maths.dense import DenseDelta
from lib_nplora.maths.lowrank import LowRankDelta
from lib_nplora.methods.texts import HARD
from lib_nplora.request.request import FusionRequest, Source

from .. import reference
from ..matrices import random_delta

KEY = ModuleKey("qkv", "unet")
OUT, IN = 24, 16


def request(mu: float = 0.5, c: float = 1.0, s: float = 1.0) -> FusionRequest:
    return FusionRequest.of((Source("content", c, c),), (Source("style", s, s),), mu=mu)


def run(request_: FusionRequest, content: dict[ModuleKey, Delta], style: dict[ModuleKey, Delta]):
    sides = [
        LoraWeights(name, f"digest of {name}", deltas) for name, deltas in (("content", content), ("style", style))
    ]
    return fuse(request_, sides[:1], sides[1:], ByteLru(0))


def sliced(delta: Delta, cuts: list[int]) -> dict[ModuleKey, Delta]:
    """The delta in slices of its rows, whole if there are no cuts."""
    edges = [0, *cuts, delta.shape[0]]
    if not cuts:
        return {KEY: delta}
    return {ModuleKey("qkv", "unet", rows): delta.rows(*rows) for rows in itertools.pairwise(edges)}


def together(deltas: dict[ModuleKey, Delta]) -> np.ndarray:
    """The update of the whole layer."""
    whole = np.zeros((OUT, IN))
    for key, delta in deltas.items():
        whole[slice(*(key.rows or (0, OUT)))] += delta.dense().double().numpy()
    return whole


def matrix(seed: int, decay: float = 0.0) -> DenseDelta:
    generator = torch.Generator().manual_seed(seed)
    return DenseDelta.of(torch.randn(OUT, IN, generator=generator) * torch.logspace(0, -decay, IN))


FORMS = {
    "factors": lambda seed: random_delta(OUT, IN, 3, seed=seed),
    "matrix": matrix,
    "nearly factors": lambda seed: matrix(seed, decay=12),
}


@pytest.mark.parametrize("mu", [0.0, 0.5, HARD])
@pytest.mark.parametrize("style", FORMS)
@pytest.mark.parametrize("content", FORMS)
def test_any_form_with_any(content, style, mu):
    """A style without factors gives the directions that hold all but a millionth of its energy."""
    c, s = FORMS[content](1), FORMS[style](2)
    fused = run(request(mu, 0.7, -1.3), {KEY: c}, {KEY: s})
    content_matrix, style_matrix = (delta.dense().double().numpy() for delta in (c, s))
    v = reference.basis([style_matrix], lost=0.0 if style == "factors" else reference.LOST)
    expected = reference.fused_layer(0.7 * content_matrix, -1.3 * style_matrix, v, mu)
    assert reference.error(together(fused.deltas), expected) < 1e-5
    assert isinstance(fused.deltas[KEY], LowRankDelta) == (content == style == "factors")
    report = fused.summary.layers[KEY]
    assert report.outcome is Outcome.FUSED
    assert report.protected == v.shape[1] / IN


cuts = st.lists(st.integers(1, OUT - 1), max_size=4, unique=True).map(sorted)


@settings(max_examples=60, deadline=None)
@given(cuts, cuts, st.sampled_from(sorted(FORMS)), st.sampled_from([0.5, HARD]), st.integers(0, 99))
def test_slices_of_any_size_on_either_side(of_content, of_style, form, mu, seed):
    """Each row of the content is projected with the basis of the style's module that holds that row."""
    content, style = FORMS[form](seed), random_delta(OUT, IN, 2, seed=seed + 100)
    styles = sliced(style, of_style)
    fused = run(request(mu), sliced(content, of_content), styles)
    expected = style.dense().double().numpy()
    for key, delta in styles.items():
        rows = slice(*(key.rows or (0, OUT)))
        v = reference.basis([(delta.up.double() @ delta.down.double()).numpy()])
        expected[rows] += content.dense().double().numpy()[rows] @ reference.projector(v, mu)
    assert reference.error(together(fused.deltas), expected) < 1e-6
    assert {layer.outcome for layer in fused.summary.layers.values()} == {Outcome.FUSED}
    assert (KEY in fused.deltas) == (not of_content and not of_style)


def test_slices_that_one_side_lacks_are_added_as_they_are():
    content, style = random_delta(OUT, IN, 3, seed=1), random_delta(OUT, IN, 2, seed=2)
    only = {key: delta for key, delta in sliced(style, [8, 16]).items() if key.rows != (8, 16)}
    fused = run(request(HARD), {KEY: content}, only)
    outcomes = {key.rows: report.outcome for key, report in fused.summary.layers.items()}
    assert outcomes == {(0, 8): Outcome.FUSED, (8, 16): Outcome.CONTENT_ONLY, (16, 24): Outcome.FUSED}
    middle = fused.deltas[ModuleKey("qkv", "unet", (8, 16))]
    assert torch.equal(middle.dense(), content.rows(8, 16).dense())


def test_a_layer_counts_once_whatever_its_slices():
    content, style = random_delta(OUT, IN, 3, seed=1), random_delta(OUT, IN, 2, seed=2)
    sides = LoraWeights("content", "c", sliced(content, [8, 16])), LoraWeights("style", "s", {KEY: style})
    assert layers(sides[:1], sides[1:]) == [KEY]


@pytest.mark.parametrize(
    "other",
    [
        {ModuleKey("qkv", "unet", (16, 32)): random_delta(16, IN, 2, seed=3)},
        {ModuleKey("qkv", "unet", (0, 8)): random_delta(9, IN, 2, seed=3)},
        {ModuleKey("qkv", "unet", (0, 8)): random_delta(8, IN + 1, 2, seed=3)},
        {KEY: random_delta(OUT + 1, IN, 2, seed=3)},
    ],
)
def test_slices_that_do_not_fit_the_layer_are_named(other):
    whole = {KEY: random_delta(OUT, IN, 3, seed=1)}
    for pair in ((whole, other), (other, whole)):
        with pytest.raises(MismatchError, match="made for different models: layer qkv is"):
            run(request(), *pair)


def test_norms_and_biases_are_added_as_they_are():
    bias = ModuleKey("qkv.bias", "unet")
    mine, theirs = DenseDelta.of(torch.arange(4.0)), DenseDelta.of(torch.ones(4))
    alone = run(request(HARD, 0.5), {bias: mine, KEY: random_delta(OUT, IN, 3, seed=1)}, {KEY: matrix(2)})
    assert torch.equal(alone.deltas[bias].dense().flatten(), 0.5 * torch.arange(4.0))
    assert alone.summary.layers[bias].outcome is Outcome.CONTENT_ONLY
    assert alone.summary.as_asked
    both = run(request(HARD, 0.5), {bias: mine}, {bias: theirs})
    assert torch.equal(both.deltas[bias].dense().flatten(), 0.5 * torch.arange(4.0) + 1)
    assert both.summary.layers[bias].outcome is Outcome.UNPROJECTED
    assert not both.summary.as_asked
    assert "1 added unprojected (norms and biases have no input side)" in str(both.summary)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn])
@pytest.mark.parametrize("method", ["np", "ties", "switch"])
def test_what_has_no_factors_is_kept_in_half_precision_if_its_weight_is(method, dtype):
    factors = random_delta(OUT, IN, 3, 7)
    other = ModuleKey("other", "unet")
    content = LoraWeights("content", "content", {KEY: factors, other: factors})
    style = LoraWeights("style", "style", {KEY: matrix(1)})
    of_both = request().with_method(method)
    exact = fuse(of_both, [content], [style], ByteLru(0))
    stored = fuse(of_both, [content], [style], ByteLru(0), dtype=lambda key: dtype)
    half = dtype in (torch.float16, torch.bfloat16)
    for found, expected in ((stored.deltas, exact.deltas), (stored.rivals, exact.rivals)):
        assert found.keys() == expected.keys()
        for key, delta in found.items():
            if isinstance(delta, DenseDelta):
                assert delta.matrix.dtype == (dtype if half else torch.float32)
                assert torch.equal(delta.matrix, expected[key].matrix.to(delta.matrix.dtype))
            else:
                assert torch.equal(delta.dense(), expected[key].dense())
    assert stored.fingerprint == exact.fingerprint
    assert (stored.nbytes < exact.nbytes) == half


def test_what_is_not_held_is_made_each_time_and_counts_as_what_it_is_made_of():
    made: list[int] = []

    def make() -> Delta:
        made.append(1)
        return matrix(3)

    held = random_delta(OUT, IN, 3, seed=1)
    other = ModuleKey("other", "te")
    deltas = DeltaMap({KEY: held}, {other: make}, 7)
    weights = LoraWeights("x", "digest", deltas)
    assert (list(deltas), len(deltas), other in deltas) == ([KEY, other], 2, True)
    assert weights.nbytes == held.nbytes + 7
    assert not made
    assert torch.equal(deltas[other].dense(), matrix(3).dense())
    run(request(), deltas, {KEY: held})
    assert len(made) == 2
