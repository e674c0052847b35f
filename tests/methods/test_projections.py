"""NP-LoRA and its counter-examples."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_nplora.fusion.walk import fuse
from lib_nplora.maths.cache import ByteLru
from lib_nplora.maths.dense import DenseDelta
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.maths.subspace import right_svd
from lib_nplora.methods.projections import hard, null_space, output_space, reverse
from lib_nplora.methods.table import methods
from lib_nplora.methods.texts import HARD

from .. import reference
from ..matrices import KEY, lora, random_delta
from .layers import deltas, exact, request, run, two_a_side, values

mus = st.one_of(st.floats(0, 100), st.just(math.inf))
PROJECTIONS = ("np", "hard", "reverse", "uspace")


def directions(sides) -> torch.Tensor:
    """All principal ones of these deltas, as columns."""
    return right_svd(sides).basis(RankRule())


@pytest.mark.parametrize("name", PROJECTIONS)
@given(mu=mus)
def test_a_projection_adds_no_energy(name, mu):
    before = two_a_side()
    after = methods()[name].fuse(before, values(name, mu=mu))
    for old, new in zip(deltas(before), deltas(after)):
        assert new.energy() <= old.energy() * (1 + 1e-6)


@given(mus)
def test_null_space_never_touches_the_styles(mu):
    before = two_a_side()
    assert null_space(before, values("np", mu=mu)).styles is before.style.deltas


def test_null_space_at_zero_is_direct():
    before = two_a_side()
    after = null_space(before, values("np", mu=0.0))
    assert all(new is old for new, old in zip(after.contents, before.content.deltas, strict=True))


def test_null_space_projects_each_content():
    before = two_a_side()
    basis = directions(before.style.plain)
    after = null_space(before, values("np", mu=math.inf))
    for old, new in zip(before.content.deltas, after.contents, strict=True):
        assert (new.dense() @ basis).norm() < 1e-5 * (old.dense() @ basis).norm()


@given(mus)
def test_hard_is_null_space_without_end_whatever_mu_is(mu):
    before = two_a_side()
    without_end = deltas(null_space(before, values("np", mu=math.inf)))
    for new, old in zip(deltas(hard(before, values("hard", mu=mu))), without_end, strict=True):
        assert torch.equal(new.dense(), old.dense())


@pytest.mark.parametrize("mu", [0.0, 0.5, HARD])
def test_hard_in_a_fusion(mu):
    pair = random_delta(12, 20, 3, 1), random_delta(12, 20, 4, 3)
    named, spelled = run(request("hard", 0.7, 1.2, mu=mu), *pair), run(request("np", 0.7, 1.2, mu=HARD), *pair)
    assert torch.equal(named.deltas[KEY].dense(), spelled.deltas[KEY].dense())
    assert named.summary.removed == spelled.summary.removed > 0


@pytest.mark.parametrize("mu", [0.0, 0.5, 3.0, HARD])
@pytest.mark.parametrize("k", ["all", "2", "90%"])
def test_reverse_is_null_space_with_the_roles_swapped(mu, k):
    content, style = random_delta(12, 20, 3, 1), random_delta(12, 20, 4, 3)
    rule = RankRule.parse(k)
    ours = run(request("reverse", 0.7, -1.2, mu=mu, k=rule), content, style)
    swapped = run(request("np", -1.2, 0.7, mu=mu, k=rule), style, content)
    assert torch.allclose(ours.deltas[KEY].dense(), swapped.deltas[KEY].dense(), atol=1e-5)
    v = reference.basis([exact(content)], k)
    expected = 0.7 * exact(content) - 1.2 * exact(style) @ reference.projector(v, mu)
    assert reference.error(exact(ours.deltas[KEY]), expected) < 1e-5
    assert ours.summary.removed == 0


@given(mus)
def test_reverse_never_touches_the_contents(mu):
    before = two_a_side()
    assert reverse(before, values("reverse", mu=mu)).contents is before.content.deltas


@pytest.mark.parametrize("form", ["factors", "matrix", "convolution"])
@pytest.mark.parametrize("mu", [0.0, 0.5, HARD])
@pytest.mark.parametrize("k", ["all", "2"])
def test_uspace_projects_on_the_left(mu, k, form):
    """dW_s + (I - beta U U^T) dW_c."""
    content, style = random_delta(15, 18, 3, 1), random_delta(15, 18, 4, 3)
    if form == "matrix":
        content = DenseDelta.of(content.dense())
    elif form == "convolution":
        content, style = (type(one)(one.up, one.down, (3, 3)) for one in (content, style))
    fused = run(request("uspace", 0.7, 1.3, mu=mu, k=RankRule.parse(k)), content, style)
    u = reference.basis([exact(style).T], k)
    expected = 1.3 * exact(style) + 0.7 * reference.projector(u, mu) @ exact(content)
    assert reference.error(exact(fused.deltas[KEY]), expected) < 1e-5
    assert fused.deltas[KEY].kernel == content.kernel
    assert fused.summary.layers[KEY].protected == u.shape[1] / 15


def test_uspace_leaves_nothing_in_the_styles_outputs():
    before = two_a_side()
    basis = directions([delta.transposed() for delta in before.style.plain])
    after = output_space(before, values("uspace", mu=math.inf))
    assert after.styles is before.style.deltas
    for old, new in zip(before.content.deltas, after.contents, strict=True):
        assert (basis.T @ new.dense()).norm() < 1e-5 * old.dense().norm()


def test_the_bases_of_different_methods_are_not_mistaken_for_each_other():
    """They are kept in one place; here the layer is square, so that each would fit."""
    pair = [lora("content", random_delta(16, 16, 3, 1))], [lora("style", random_delta(16, 16, 4, 3))]
    kept = ByteLru(2**30)
    for _ in range(2):
        for name in (*PROJECTIONS, "klora"):
            fused, alone = (fuse(request(name, mu=HARD), *pair, cache) for cache in (kept, ByteLru(0)))
            assert torch.equal(fused.deltas[KEY].dense(), alone.deltas[KEY].dense())
