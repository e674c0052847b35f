"""The pieces of K-LoRA's selection: sums of the largest, and scales."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_nplora.maths.dense import DenseDelta
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
    top_sum,
)
from lib_nplora.methods.table import methods

from ..matrices import random_delta
from .layers import values


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
    assert Schedule(contests, methods()["klora"].rule(values("klora"))).gamma == 12 / 4
