"""The pieces of K-LoRA's selection: sums of the largest, and scales."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_nplora.maths.delta import whole
from lib_nplora.maths.dense import DenseDelta
from lib_nplora.maths.lowrank import LowRankDelta
from lib_nplora.methods import selection
from lib_nplora.methods.selection import (
    Contest,
    Importance,
    Schedule,
    content_wins,
    importance,
    rank_of,
    rising,
    sawtooth,
    top_k,
)
from lib_nplora.methods.table import methods

from ..matrices import random_delta
from .layers import values


@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(1, 8),
    st.integers(1, 40),
    st.sampled_from([1, 40, selection.AT_ONCE]),
    st.integers(0, 2**20),
)
def test_importance_weighs_magnitudes(out, in_, rank, k, at_once, seed):
    delta = random_delta(out, in_, rank, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "AT_ONCE", at_once)
        found = importance(delta, k)
    every = ceil(out / max(at_once // in_, 1))
    pieces = [(delta.up[start::every] @ delta.down).flatten() for start in range(every)]
    magnitudes = torch.cat(pieces).abs().double().sort(descending=True).values
    assert found.top == pytest.approx(float(magnitudes[:k].sum()), rel=1e-12)
    assert found.total == pytest.approx(float(magnitudes.sum()), rel=1e-12)
    for weight in (-0.7, 0.0, 2.0):
        scaled, heavy = found.scaled(weight), importance(delta.scaled(weight), k)
        assert (scaled.top, scaled.total) == pytest.approx((heavy.top, heavy.total), rel=1e-5)


@pytest.mark.parametrize("form", [lambda delta: delta, whole])
def test_importance_is_right_where_the_first_rows_are_the_strongest(monkeypatch, form):
    """Each piece has rows from all over the layer; where that does not help, they are weighed once more."""
    monkeypatch.setattr(selection, "AT_ONCE", 200)
    factors = random_delta(40, 50, 4, 0)
    for strong in (slice(0, 4), slice(0, 40, 10)):
        up = factors.up.clone()
        up[strong] *= 1000
        delta = LowRankDelta(up, factors.down)
        magnitudes = delta.dense().abs().double().flatten().sort(descending=True).values
        found = importance(form(delta), 150)
        assert found.top == pytest.approx(float(magnitudes[:150].sum()), rel=1e-6)
        assert found.total == pytest.approx(float(magnitudes.sum()), rel=1e-6)


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
    assert Schedule(contests, methods()["klora"].rule(values("klora"))).gamma == 12 / 4
