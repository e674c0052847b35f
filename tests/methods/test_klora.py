"""K-LoRA's schedule against the paper's own loop over layers and steps, and what each layer holds meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lib_nplora.errors import RequestError
from lib_nplora.fusion.fused import FusedLora
from lib_nplora.fusion.outcome import Outcome
from lib_nplora.fusion.walk import fingerprint, fuse
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.cache import ByteLru
from lib_nplora.maths.delta import Delta
from lib_nplora.maths.dense import DenseDelta
from lib_nplora.maths.lowrank import LowRankDelta
from lib_nplora.methods import turns
from lib_nplora.methods.selection import rising, sawtooth
from lib_nplora.request.request import FusionRequest, Source
from lib_nplora.request.tag import parse_tag

from ..matrices import randn, random_delta
from ..reference import error
from ..reference import k_lora as reference

ATTENTION = ("0_attn1_to_q", "0_attn1_to_k", "0_attn2_to_out_0", "1_attn1_to_v")
OTHER = ("0_ff_net_0_proj", "0_resnets_0_conv1")
DEFAULTS = {"klora": (1.5, 0.5), "klora*": (1.5, 1.3)}

Deltas = Mapping[str, Delta]


def request(method: str = "klora", c: float = 1.0, s: float = 1.0, **options) -> FusionRequest:
    return FusionRequest.of((Source("dog", c, c),), (Source("vangogh", s, s),), method, **options)


def lora(name: str, deltas: Deltas, part: str = "unet") -> LoraWeights:
    return LoraWeights(name, f"digest of {name}", {ModuleKey(layer, part): delta for layer, delta in deltas.items()})


def run(request_: FusionRequest, content: Deltas, style: Deltas, derived: ByteLru | None = None) -> FusedLora:
    return fuse(
        request_, [lora("dog", content)], [lora("vangogh", style)], ByteLru(2**30) if derived is None else derived
    )


def rank(delta: Delta) -> int:
    return delta.rank if isinstance(delta, LowRankDelta) else min(delta.shape)


def exact(delta: Delta) -> np.ndarray:
    if isinstance(delta, LowRankDelta):
        return delta.up.double().numpy() @ delta.down.double().numpy()
    return delta.matrix.double().numpy()


def pairs(content: Deltas, style: Deltas, c: float = 1.0, s: float = 1.0, scope: str = "attention"):
    """What the reference is to look at."""
    return {
        name: reference.Pair(c * exact(delta), s * exact(style[name]), rank(delta), rank(style[name]))
        for name, delta in content.items()
        if name in style and (scope == "all" or "attn" in name)
    }


def found(fused: FusedLora, steps: int) -> dict[str, str]:
    assert fused.schedule is not None
    return {key.name: letters for key, letters in fused.schedule.letters(steps).items()}


def agrees(method: str, content: Deltas, style: Deltas, steps: int, c=1.0, s=1.0, scope="attention", **options):
    """Our schedule, once it is checked against the reference."""
    alpha, beta = DEFAULTS[method]
    given_ = {"alpha": alpha, "beta": beta, **options}
    fused = run(request(method, c, s, scope=scope, **options), content, style)
    layers = pairs(content, style, c, s, scope)
    letters = reference.letters(layers, steps, given_["alpha"], given_["beta"], method == "klora*")
    assert found(fused, steps) == letters
    return letters


def side(seed: int, rank_: int, loud: float = 1.0) -> dict[str, Delta]:
    """Layers of several shapes, one of them a convolution, each with an alpha of its own, and sparse to a degree."""
    made: dict[str, Delta] = {}
    for i, name in enumerate((*ATTENTION, *OTHER)):
        up, down = randn(12 + 4 * i, rank_, seed=seed + 2 * i), randn(rank_, 20, seed=seed + 2 * i + 1)
        if "conv" in name:
            up, down = up[:, :, None, None], randn(rank_, 5, 3, 3, seed=seed + 2 * i + 1)
        spiky = torch.where(randn(*up.shape, seed=seed + 50 + i) > 1, 3.0, 0.5)
        alpha = (1.0, 4.0, 0.5)[(seed + i) % 3]
        made[name] = LowRankDelta.from_factors(up * spiky, down, scale=loud * alpha / rank_)
    return made


weights = st.sampled_from([1.0, 0.7, -1.3, 0.05, 2.0])
schedules = st.sampled_from(sorted(DEFAULTS))
scopes = st.sampled_from(["attention", "all"])
ranks = st.integers(1, 6)


@settings(max_examples=150, deadline=None)
@given(schedules, scopes, ranks, ranks, weights, weights, st.integers(4, 60), st.integers(0, 2**16))
def test_random_pairs(method, scope, rank_c, rank_s, c, s, steps, seed):
    agrees(method, side(seed, rank_c), side(seed + 999, rank_s, 0.1), steps, c, s, scope)


@settings(max_examples=50, deadline=None)
@given(schedules, st.sampled_from([0.5, 1.0, 1.5, 3.0]), st.sampled_from([0.0, 0.5, 0.9, 1.3]), st.integers(4, 60))
def test_any_alpha_and_beta(method, alpha, beta, steps):
    agrees(method, side(3, 4), side(1003, 2), steps, alpha=alpha, beta=beta)


def test_random_pairs_are_no_foregone_conclusion():
    """Over these layers, both sides win some of the steps, and not all layers switch at once."""
    for method in DEFAULTS:
        letters = agrees(method, side(1, 4), side(1001, 4), 30, scope="all")
        assert len(set(letters.values())) > 2
        assert {"c", "s"} <= set("".join(letters.values()))


def trained(target_seed: int, rank_: int) -> dict[str, Delta]:
    """LoRAs trained by gradient descent to stand in for a few directions that a task needs."""
    made: dict[str, Delta] = {}
    for i, name in enumerate(ATTENTION):
        generator = torch.Generator().manual_seed(target_seed + i)
        task = torch.randn(24, 3, generator=generator) @ torch.randn(3, 32, generator=generator)
        down = nn.Parameter(torch.randn(rank_, 32, generator=generator) / 32**0.5)
        up = nn.Parameter(torch.zeros(24, rank_))
        optimiser = torch.optim.AdamW([up, down], lr=0.02)
        for _ in range(40 + 30 * i):
            x = torch.randn(16, 32, generator=generator)
            loss = (x @ (up @ down - task).T).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        made[name] = LowRankDelta.from_factors(up, down, scale=0.5)
    return made


@pytest.fixture(scope="module")
def trained_pair() -> tuple[Deltas, Deltas]:
    return trained(1, 4), trained(100, 8)


@pytest.mark.parametrize("method", DEFAULTS)
@pytest.mark.parametrize("scope", ["attention", "all"])
def test_trained_pairs(trained_pair, method, scope):
    for steps in range(4, 61):
        agrees(method, *trained_pair, steps, scope=scope)


def test_layers_without_factors_count_their_full_rank():
    content = {name: DenseDelta.of(randn(16, 20, seed=i)) for i, name in enumerate(ATTENTION)}
    style = {name: random_delta(16, 20, 3, seed=40 + i) for i, name in enumerate(content)}
    agrees("klora", content, style, 30)
    agrees("klora*", style, content, 30)


# Ties


@pytest.mark.parametrize("steps", [3, 6, 9, 12, 21, 30, 60])
def test_a_pair_of_equals_ties_where_the_scale_is_one_and_the_content_has_it(steps):
    same = side(5, 3)
    for method, c in itertools.product(DEFAULTS, (1.0, 0.7, -0.3)):
        agrees(method, same, same, steps, c, abs(c))
    (letters,) = set(agrees("klora", same, same, steps).values())
    assert letters == "c" * (steps // 3 + 1) + "s" * (steps - steps // 3 - 1)


def whole_numbers(*rows: list[int]) -> DenseDelta:
    return DenseDelta.of(torch.tensor(rows, dtype=torch.float32))


@settings(max_examples=200, deadline=None)
@given(st.integers(4, 60), st.data(), st.integers(1, 50))
def test_ties_of_whole_numbers_are_the_contents(steps, data, unit):
    """S_c = gamma S S_s in exact numbers: 2 T S is whole, and a second layer evens the sums of all magnitudes out.

    Where S itself has no exact float, rounding may give the step of the tie, and no other, to the style: the paper's
    pseudocode in floats does the same.
    """
    step = data.draw(st.integers(0, steps - 1))
    top_c, top_s = (3 * step + steps) * unit, 2 * steps * unit
    content = {ATTENTION[0]: whole_numbers([top_c, 0]), ATTENTION[1]: whole_numbers([top_s, 0])}
    style = {ATTENTION[0]: whole_numbers([top_s, 0]), ATTENTION[1]: whole_numbers([top_c, 0])}
    assert Fraction(top_c, top_s) == Fraction(3, 2) * Fraction(step, steps) + Fraction(1, 2)
    letters = agrees("klora", content, style, steps)[ATTENTION[0]]
    if rising(1.5, 0.5, step, steps) == Fraction(top_c, top_s):
        assert letters == "c" * (step + 1) + "s" * (steps - step - 1)
    assert letters[:step] == "c" * step
    assert letters[step + 1 :] == "s" * (steps - step - 1)


@pytest.mark.parametrize("loud", [2, 4, 0.5])
def test_a_louder_side_ties_all_the_same(loud):
    same = side(7, 2)
    louder = {name: delta.scaled(loud) for name, delta in same.items()}
    assert agrees("klora", louder, same, 6) == agrees("klora", same, louder, 6) == dict.fromkeys(ATTENTION, "cccsss")


@pytest.mark.parametrize("steps", [15, 30, 45, 60])
def test_the_tooth_falls_where_it_reaches_alpha(steps):
    """1.5 t / T + 1.3 = 1.5 at t = 2 T / 15: the style has the steps before, the content that one and those after."""
    fall, same = 2 * steps // 15, side(9, 3)
    assert sawtooth(1.5, 1.3, fall, steps) == 0
    (letters,) = set(agrees("klora*", same, same, steps).values())
    again = next(step for step in range(fall, steps + 1) if 1.5 * step / steps - 0.2 > 1 or step == steps)
    assert letters == "s" * fall + "c" * (again - fall) + "s" * (steps - again)


@pytest.mark.parametrize("steps", range(1, 151))
def test_the_scales_are_the_papers_in_exact_numbers(steps):
    """No rounding moves a step to the other side of the wrap."""
    for step in range(steps):
        exact_ = Fraction(3, 2) * Fraction(step, steps)
        assert rising(1.5, 0.5, step, steps) == pytest.approx(float(exact_ + Fraction(1, 2)), rel=1e-15)
        assert sawtooth(1.5, 1.3, step, steps) == pytest.approx(
            float((exact_ + Fraction(13, 10)) % Fraction(3, 2)), rel=1e-12, abs=1e-15
        )


# Properties


@settings(max_examples=100, deadline=None)
@given(schedules, ranks, ranks, st.integers(1, 150), st.integers(0, 2**16))
def test_a_layer_switches_once_or_with_the_sawtooth_twice(method, rank_c, rank_s, steps, seed):
    fused = run(request(method, scope="all"), side(seed, rank_c), side(seed + 999, rank_s))
    for letters in found(fused, steps).values():
        switches = sum(a != b for a, b in itertools.pairwise(letters))
        assert switches <= (2 if method == "klora*" else 1)
        if method == "klora":
            assert "sc" not in letters


def test_the_first_step_is_the_same_however_many_follow():
    """S = beta there."""
    for method in DEFAULTS:
        fused = run(request(method, scope="all"), side(1, 4), side(1001, 4))
        assert fused.schedule is not None
        for steps in (1, 2, 7, 60):
            assert fused.schedule.winners(0, steps) == fused.first_winners()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from([2.0, 0.25, -4.0]), st.sampled_from([2.0, -0.5]))
def test_neither_wins_for_being_louder(seed, c, s):
    """Gamma takes out what a whole LoRA is multiplied by. Powers of two, which round nothing."""
    plain, loud = (run(request("klora", *by), side(seed, 3), side(seed + 999, 2)) for by in ((1.0, 1.0), (c, s)))
    assert found(plain, 20) == found(loud, 20)


# What the layers hold


def both(names: tuple[str, ...] = (*ATTENTION, *OTHER)) -> tuple[Deltas, Deltas]:
    content, style = side(1, 4), side(1001, 3)
    return {name: content[name] for name in names}, {name: style[name] for name in names}


@pytest.mark.parametrize("method", DEFAULTS)
@pytest.mark.parametrize("scope", ["attention", "all"])
def test_a_contested_layer_holds_its_winner_alone_and_any_other_the_sum(method, scope):
    content, style = both()
    only = {"1_attn2_to_q": random_delta(12, 20, 2, seed=5)}
    request_ = replace(request(method, 0.7, -1.3, scope=scope), unet=0.5)
    fused = run(request_, {**content, **only}, style)
    assert fused.schedule is not None
    for step in range(12):
        winners = fused.schedule.winners(step, 12)
        assert {key.name for key in winners} == set(content if scope == "all" else ATTENTION)
        for name, delta in content.items():
            key = ModuleKey(name, "unet")
            c, s = 0.35 * exact(delta), -0.65 * exact(style[name])
            wanted = {"content": c, "style": s, None: c + s}[winners.get(key)]
            assert error(fused.update(key, winners).dense(), wanted) < 1e-6
            assert fused.update(key, winners).kernel == delta.kernel
        (lone,) = (fused.update(ModuleKey(name, "unet"), winners) for name in only)
        assert error(lone.dense(), 0.35 * exact(only["1_attn2_to_q"])) < 1e-6


@pytest.mark.parametrize("method", ["klora", "klora*", "fixed", "switch"])
def test_a_text_encoder_takes_the_sum(method):
    content, style = both(ATTENTION)
    sides = [lora("dog", content, "te")], [lora("vangogh", style, "te")]
    fused = fuse(request(method, 0.5, 2.0, scope="all"), *sides, ByteLru(0))
    assert fused.schedule is None
    assert not fused.rivals
    for key, delta in fused.deltas.items():
        assert error(delta.dense(), 0.5 * exact(content[key.name]) + 2 * exact(style[key.name])) < 1e-6


def test_a_side_of_zeros_is_no_rival():
    """Neither a weight of 0 nor a layer that was never trained takes a layer away from the other side."""
    content, style = both(ATTENTION)
    for c, s in ((0.0, 1.0), (1.0, 0.0)):
        fused = run(request("klora", c, s), content, style)
        assert fused.schedule is None
        for key, delta in fused.deltas.items():
            assert error(delta.dense(), c * exact(content[key.name]) + s * exact(style[key.name])) < 1e-6
    nothing = run(request("klora", 0.0, 0.0), content, style)
    assert nothing.schedule is None
    assert nothing.deltas == nothing.rivals == {}
    untrained = {**content, ATTENTION[0]: content[ATTENTION[0]].scaled(0.0)}
    fused = run(request("klora"), untrained, style)
    assert {key.name for key in fused.first_winners()} == set(ATTENTION[1:])
    assert not ({ModuleKey(ATTENTION[0], "unet")} & fused.rivals.keys())


def test_norms_and_biases_take_the_sum():
    content, style = both(ATTENTION[:1])
    bias = {"0_attn1_to_out_0_bias": DenseDelta.of(torch.ones(4))}
    fused = run(request("klora"), {**content, **bias}, {**style, **bias})
    assert [key.name for key in fused.first_winners()] == [ATTENTION[0]]
    assert torch.equal(fused.deltas[ModuleKey("0_attn1_to_out_0_bias", "unet")].dense(), torch.full((4, 1), 2.0))


def test_several_loras_a_side_are_one_side():
    content, style = side(1, 4), side(1001, 3)
    second = side(2001, 2)
    sides = (Source("dog", 1, 0.8), Source("cat", 1, -0.5)), (Source("vangogh", 1, 1.2),)
    fused = fuse(
        FusionRequest.of(*sides, "klora"),
        [lora("dog", content), lora("cat", second)],
        [lora("vangogh", style)],
        ByteLru(0),
    )
    layers = {
        name: reference.Pair(0.8 * exact(content[name]) - 0.5 * exact(second[name]), 1.2 * exact(style[name]), 6, 3)
        for name in ATTENTION
    }
    for steps in (4, 20, 60):
        assert found(fused, steps) == reference.letters(layers, steps, 1.5, 0.5, False)


@pytest.mark.parametrize("method", DEFAULTS)
def test_slices_are_contested_one_by_one(method):
    """A content that has q, k and v one by one, and a style that has them whole."""
    rows = [(0, 8), (8, 16), (16, 24)]
    parts = {span: random_delta(8, 20, 2, seed=10 * i) for i, span in enumerate(rows)}
    whole = random_delta(24, 20, 4, seed=77)
    content = LoraWeights("dog", "d", {ModuleKey("0_attn_qkv", "unet", span): part for span, part in parts.items()})
    style = LoraWeights("vangogh", "v", {ModuleKey("0_attn_qkv", "unet"): whole})
    fused = fuse(request(method), [content], [style], ByteLru(0))
    assert fused.schedule is not None
    layers = {str(span): reference.Pair(exact(part), exact(whole)[slice(*span)], 2, 4) for span, part in parts.items()}
    alpha, beta = DEFAULTS[method]
    found_ = {str(key.rows): letters for key, letters in fused.schedule.letters(30).items()}
    assert found_ == reference.letters(layers, 30, alpha, beta, method == "klora*")


# What is kept


def test_other_weights_and_scales_weigh_nothing_again(monkeypatch):
    calls = []
    weigh = turns.importance
    monkeypatch.setattr(turns, "importance", lambda delta, k: calls.append(k) or weigh(delta, k))
    content, style = both()
    kept = ByteLru(2**30)
    run(request("klora"), content, style, kept)
    assert len(calls) == 2 * len(ATTENTION)
    for method, c, s, alpha, beta in itertools.product(DEFAULTS, (0.3, -2.0), (1.0, 0.7), (1.0, 2.0), (0.1, 0.9)):
        sweep = run(request(method, c, s, alpha=alpha, beta=beta), content, style, kept)
        afresh = pairs(content, style, c, s)
        assert found(sweep, 20) == reference.letters(afresh, 20, alpha, beta, method == "klora*")
        kept.begin_round()
    assert len(calls) == 2 * len(ATTENTION)
    run(request("klora", scope="all"), content, style, kept)
    assert len(calls) == 2 * len((*ATTENTION, *OTHER))


def test_another_rank_on_the_other_side_weighs_anew():
    """K is the product of both ranks, so a sum that was kept for another style must not be taken."""
    content, kept = side(1, 4), ByteLru(2**30)
    for rank_ in (1, 3, 6):
        style = side(1001, rank_)
        sides = [lora("dog", content)], [replace(lora("vangogh", style), digest=f"rank {rank_}")]
        fused = fuse(request("klora"), *sides, kept)
        assert found(fused, 40) == reference.letters(pairs(content, style), 40, 1.5, 0.5, False)


# What is said


def test_each_option_has_its_own_fingerprint():
    content, style = both()
    sides = [lora("dog", content)], [lora("vangogh", style)]
    asked = [request(), request("klora*"), request(alpha=1.0), request(beta=0.1), request(scope="all")]
    assert len({fingerprint(one, *sides) for one in asked}) == len(asked)
    assert fingerprint(request(alpha=1.5, beta=0.5, scope="attention"), *sides) == fingerprint(request(), *sides)


@pytest.mark.parametrize("alpha", [0.0, -1.5])
def test_a_sawtooth_without_teeth_is_refused(alpha):
    content, style = both()
    with pytest.raises(RequestError, match=f"alpha={alpha:g} makes no sawtooth: klora\\* takes an alpha above 0"):
        run(request("klora*", alpha=alpha), content, style)
    run(request("klora", alpha=alpha), content, style)


def test_an_unknown_scope_is_refused_with_a_hint():
    with pytest.raises(RequestError, match=r"there is no scope 'atention'\. Did you mean 'attention'\?"):
        parse_tag(["dog", "vangogh", "method=klora", "scope=atention"])
    with pytest.raises(RequestError, match=r"there is no scope 'x'\. Known: attention, all\."):
        parse_tag(["dog", "vangogh", "method=klora", "scope=x"])


def test_contested_layers_count_as_fused():
    content, style = both()
    fused = run(request(), content, style)
    assert {report.outcome for report in fused.summary.layers.values()} == {Outcome.FUSED}
    assert fused.nbytes > run(request("direct"), content, style).nbytes * 0.9
