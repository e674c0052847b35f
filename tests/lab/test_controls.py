"""Controls: each does what its name says, layer by layer, and is gone from the table afterwards."""

from __future__ import annotations

import pytest
import torch

from lab.controls import METHODS, controls, random_subspace, shrunk, spectral
from lib_nplora.layers.key import ModuleKey
from lib_nplora.maths.lowrank import LowRankDelta
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.methods import table
from lib_nplora.methods.balance import down, meeting
from lib_nplora.methods.layer import Layer, Share, Side
from lib_nplora.methods.projections import K, hard
from tests.matrices import KEY, with_spectrum


def side(seed: int, size: float) -> Side:
    generator = torch.Generator().manual_seed(seed)
    up, down = torch.randn(12, 3, generator=generator), torch.randn(3, 20, generator=generator)
    key = ModuleKey("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q", "unet")
    delta = LowRankDelta(size * up, down)
    return Side([Share(f"lora {seed}", f"digest {seed}", key, delta, 1.0, 0, 12)], 0, 12)


@pytest.fixture
def layer() -> Layer:
    content, style = side(0, 1.0), side(1, 3.0)
    return Layer(content.shares[0].key, content, style, lambda need, layer: need.make(layer))


def layer_of(content: Side, style: Side) -> Layer:
    return Layer(content.shares[0].key, content, style, lambda need, layer: pytest.fail("a need that needs another"))


def energies(made) -> tuple[float, float]:
    return sum(delta.energy() for delta in made.contents), sum(delta.energy() for delta in made.styles)


@pytest.mark.parametrize(("weigh", "wanted"), [(meeting, (12**0.5, 12**0.5)), (down, (3.0, 3.0))])
def test_spectral_norms_are_balanced(weigh, wanted):
    """A content whose largest singular value is 4, a style whose is 3."""
    sides = [
        Side([Share(name, name, KEY, LowRankDelta(*with_spectrum(12, 20, s, seed)), 1.0, 0, 12)], 0, 12)
        for name, s, seed in (("content", [4.0, 1.0], 5), ("style", [3.0, 2.5, 2.0], 9))
    ]
    made = spectral(layer_of(*sides), None, weigh)
    found = [float(torch.linalg.matrix_norm(one.dense(), 2)) for one in (made.contents[0], made.styles[0])]
    assert found == pytest.approx(wanted, rel=1e-5)


def test_a_side_that_is_nothing_changes_nothing():
    content, style = side(0, 1.0), side(1, 0.0)
    assert energies(spectral(layer_of(content, style), None, meeting)) == (pytest.approx(content.energy), 0)


def test_random_removes_as_many_directions_and_other_ones(layer):
    made = random_subspace(layer, None)
    removed = layer.content.deltas[0].dense() - made.contents[0].dense()
    assert torch.linalg.matrix_rank(removed) == 3
    style = layer.style.deltas[0].dense()
    assert (made.contents[0].dense() @ style.T).norm() > 0.1 * (layer.content.deltas[0].dense() @ style.T).norm()
    assert torch.equal(made.contents[0].dense(), random_subspace(layer, None).contents[0].dense())


def test_shrunk_has_the_energy_that_hard_leaves(layer):
    left = hard(layer, {K: RankRule()}).contents[0]
    (weak,) = shrunk(layer, None).contents
    assert weak.energy() == pytest.approx(left.energy(), rel=1e-5)
    whole = layer.content.deltas[0].dense()
    assert torch.allclose(weak.dense() / weak.dense().norm(), whole / whole.norm(), atol=1e-5)


def test_controls_are_in_the_table_only_while_they_are_wanted():
    names = {method.name for method in METHODS}
    before = set(table.methods())
    assert not names & before
    with controls():
        assert set(table.methods()) == before | names
    assert set(table.methods()) == before
