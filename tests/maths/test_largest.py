"""The sum of the largest of many numbers, whatever pieces they come in."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_nplora.maths.largest import Largest


def largest_sum(values: torch.Tensor, k: int, piece: int, hasty: bool = False) -> float | None:
    largest = Largest(k, len(values), hasty)
    for start in range(0, len(values), piece):
        largest.add(values.numpy()[start : start + piece])
    return largest.sum()


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 3000), st.data(), st.integers(0, 2**20), st.sampled_from(["any", "zeros", "few values", "decades"])
)
def test_it_is_that_of_a_full_sort(n, data, seed, kind):
    k = data.draw(st.one_of(st.integers(0, n + 5), st.integers(1, 1 + n // 16)))
    piece = data.draw(st.integers(1 + n // 50, n))
    values = torch.randn(n, generator=torch.Generator().manual_seed(seed)).abs()
    if kind == "zeros":
        values[values < 1] = 0
    elif kind == "few values":
        values = (values * 2).round()
    elif kind == "decades":
        values = 10 ** (4 * values - 6)
    expected = pytest.approx(math.fsum(sorted(values.tolist(), reverse=True)[:k]), rel=1e-13)
    assert largest_sum(values, k, piece) == expected
    assert largest_sum(values, k, piece, hasty=True) in (expected, None)


@pytest.mark.parametrize("n", [1, 2, 17, 1000, 4096, 100_000])
@pytest.mark.parametrize("k", [1, 4, 64, 256])
def test_it_finds_them_wherever_they_are(n, k):
    """All in one piece, one in each piece, at either end, and in the middle."""
    for where in (slice(0, k), slice(max(n - k, 0), n), slice(0, n, max(n // k, 1)), slice(n // 2, n // 2 + k)):
        values = torch.full((n,), 0.5)
        values[where] = 2.0
        count = min(int((values == 2).sum()), k)
        assert largest_sum(values, k, max(n // 30, 1)) == 2 * count + 0.5 * (min(k, n) - count)
    assert largest_sum(torch.zeros(n), k, n) == 0


def test_none_of_nothing():
    assert Largest(3, 0).sum() == 0


def test_haste_finds_them_in_pieces_that_are_alike():
    values = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    expected = math.fsum(sorted(values.tolist(), reverse=True)[:100])
    assert largest_sum(values, 100, 10_000, hasty=True) == pytest.approx(expected, rel=1e-13)


def test_haste_says_so_if_the_first_piece_holds_most_of_them():
    values = torch.linspace(2, 1, 10_000)
    assert largest_sum(values, 2000, 1000, hasty=True) is None


def test_the_pieces_are_left_alone():
    values = torch.rand(5000)
    before = values.clone()
    for hasty in (False, True):
        largest_sum(values, 3, 700, hasty)
        assert torch.equal(values, before)
