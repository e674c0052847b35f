"""Rows of interference: against their definitions; planted overlaps; LoRAs that were trained."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from lib_nplora.findings.groups import SAME_START
from lib_nplora.fusion.interference import Interference, effective_rank, smallest_angle
from lib_nplora.fusion.walk import fuse_layers
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.cache import ByteLru
from lib_nplora.maths.delta import Delta, whole
from lib_nplora.maths.lowrank import LowRankDelta
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.methods.texts import HARD
from lib_nplora.request.request import FusionRequest, Source

from ..reference import interference

KEY = ModuleKey("layer", "unet")


def row(content: Delta, style: Delta, *, c: float = 1.0, s: float = 1.0, **settings: object) -> Interference:
    request = FusionRequest.of((Source("c", c, c),), (Source("s", s, s),), **settings)
    sides = [[LoraWeights(name, name, {KEY: delta})] for name, delta in (("c", content), ("s", style))]
    (layer,) = fuse_layers(request, *sides, ByteLru(0), inspected=True)
    assert layer.interference is not None
    return layer.interference


def factors(out: int, rank: int, in_: int, seed: int) -> LowRankDelta:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.logspace(0, -2, rank)
    return LowRankDelta(
        torch.randn(out, rank, generator=generator) * spread, torch.randn(rank, in_, generator=generator)
    )


@pytest.mark.parametrize("mu", [0.0, 0.5, 3.0, HARD])
@pytest.mark.parametrize("k", ["all", "2", "90%"])
@pytest.mark.parametrize("shape", [(96, 80, 4, 6), (32, 200, 8, 8), (200, 32, 8, 3)])
@pytest.mark.parametrize("form", ["factors", "dense"])
def test_rows_are_those_of_a_float64_reference(mu, k, shape, form):
    out, in_, content_rank, style_rank = shape
    content, style = factors(out, content_rank, in_, 1), factors(out, style_rank, in_, 2)
    dense = [0.7 * content.dense().double().numpy(), -1.3 * style.dense().double().numpy()]
    if form == "dense":
        content, style = whole(content), whole(style)
    found = row(content, style, c=0.7, s=-1.3, mu=mu, k=RankRule.parse(k))
    for name, value in interference.row(*dense, mu, k).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-5, abs=1e-5), name
    s = np.linalg.svd(dense[1] / 1.3, compute_uv=False)[:style_rank]
    np.testing.assert_allclose(found.spectrum, s, rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_planted_overlaps_read_back(share):
    """Rows of the content lie in the style's row space with that share of their energy, and off it with the rest."""
    q, _ = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    up, _ = torch.linalg.qr(torch.randn(48, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64))
    mixed = math.sqrt(share) * q[:4] + math.sqrt(1 - share) * q[10:14]
    content = LowRankDelta(up.float(), mixed.float())
    style = LowRankDelta(torch.randn(48, 4), (torch.randn(4, 4) @ q[:4].float()))
    found = row(content, style, mu=HARD)
    assert found.overlap == pytest.approx(share, abs=1e-6)
    assert found.removed == pytest.approx(share, abs=1e-6)
    assert found.angle == pytest.approx(math.degrees(math.acos(math.sqrt(share))), abs=1e-3)


def test_a_side_that_changes_nothing():
    nothing, something = LowRankDelta(torch.zeros(8, 2), torch.zeros(2, 6)), factors(8, 2, 6, 1)
    found = row(nothing, something)
    assert (found.overlap, found.removed, found.norm_ratio, found.angle) == (0, 0, 0, 90)
    found = row(something, nothing)
    assert (found.overlap, found.chance, found.style_rank, found.norm_ratio) == (0, 0, 0, None)


def test_small_angles_are_told_from_none():
    one = torch.zeros(1, 5)
    one[0, 0] = 1
    for angle in (0.0, 1e-3, 45.0):
        other = torch.zeros(1, 5, dtype=torch.float64)
        other[0, 0], other[0, 1] = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        assert smallest_angle(one, other) == pytest.approx(angle, rel=1e-6)


def test_effective_rank_counts_equal_values():
    assert effective_rank(torch.ones(7)) == pytest.approx(7)
    assert effective_rank(torch.tensor([1.0, 1e-12])) == pytest.approx(1)


def trained(seed: int, task: int) -> dict[str, LowRankDelta]:
    """A LoRA of rank 8 on three frozen layers, trained from `seed` to turn them into the model of `task`."""
    torch.manual_seed(0)
    frozen = [nn.Linear(64, 64, bias=False).requires_grad_(False) for _ in range(3)]
    torch.manual_seed(1000 + task)
    shift = [0.3 * torch.randn(64, 2) @ torch.randn(2, 64) / 8 for _ in frozen]
    inputs = torch.randn(256, 64)
    torch.manual_seed(seed)
    downs = [nn.Parameter(torch.empty(8, 64)) for _ in frozen]
    for down in downs:
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
    ups = [nn.Parameter(torch.zeros(64, 8)) for _ in frozen]
    optimizer = torch.optim.AdamW([*downs, *ups], lr=2e-4)

    def run(change: list[torch.Tensor]) -> torch.Tensor:
        hidden = inputs
        for layer, delta in zip(frozen, change):
            hidden = torch.nn.functional.silu(hidden @ (layer.weight + delta).T)
        return hidden

    goal = run(shift)
    for _ in range(300):
        optimizer.zero_grad()
        (run([up @ down for up, down in zip(ups, downs)]) - goal).square().mean().backward()
        optimizer.step()
    pairs = zip(ups, downs)
    return {f"layer {i}": LowRankDelta(up.detach(), down.detach()) for i, (up, down) in enumerate(pairs)}


def test_loras_trained_from_one_start_are_told_from_those_that_are_not():
    content = trained(seed=0, task=1)
    same, other = trained(seed=0, task=2), trained(seed=5, task=2)
    alike = [row(content[name], same[name], mu=HARD) for name in content]
    apart = [row(content[name], other[name], mu=HARD) for name in content]
    assert min(found.start for found in alike) > SAME_START
    assert max(abs(found.start) for found in apart) < SAME_START / 2
    assert np.mean([found.overlap for found in alike]) > 2 * np.mean([found.overlap for found in apart])
