"""Rank correlation by hand, and how far a picture moved."""

from __future__ import annotations

import pytest
import torch

from lab.judge import Judge
from lab.prediction import changed, rank_correlation, ranks


def test_ranks_of_ties_are_shared():
    assert ranks([3.0, 1.0, 3.0, 0.0]).tolist() == [3.5, 2.0, 3.5, 1.0]


@pytest.mark.parametrize(
    ("other", "expected"), [([10, 100, 1000, 1e9], 1.0), ([4, 3, 2, 1], -1.0), ([1, 4, 2, 3], 0.4)]
)
def test_only_the_order_counts(other, expected):
    assert rank_correlation([1, 2, 3, 4], other) == pytest.approx(expected)


def test_a_picture_that_stays_has_not_changed():
    panel = [Judge(["fox", "lion"], ["neon", "noto"]).eval()]
    images = torch.rand(2, 3, 48, 48)
    assert changed(panel, images, images) == pytest.approx(0, abs=1e-6)
    assert changed(panel, images, 1 - images) > 1e-3
