import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_nplora.errors import RequestError
from lib_nplora.methods import METHODS, Layer, direct, method_named, null_space
from lib_nplora.rank_rule import RankRule
from lib_nplora.subspace import right_svd

from .matrices import random_delta

mus = st.one_of(st.floats(0, 100), st.just(math.inf))


def layer(with_basis: bool = True) -> Layer:
    styles = [random_delta(12, 20, 4, 1), random_delta(12, 20, 2, 3)]
    contents = [random_delta(12, 20, 5, 5), random_delta(12, 20, 3, 7)]
    return Layer(contents, styles, right_svd(styles).basis(RankRule()) if with_basis else None)


@pytest.mark.parametrize("name", METHODS)
@given(mu=mus)
def test_a_method_keeps_shapes_and_the_number_of_deltas(name, mu):
    method = METHODS[name]
    before = layer(method.needs_basis)
    after = method.fuse(before, mu)
    for old, new in zip((*before.contents, *before.styles), (*after.contents, *after.styles), strict=True):
        assert (old.shape, old.rank, old.kernel) == (new.shape, new.rank, new.kernel)
        assert new.dense().isfinite().all()


@pytest.mark.parametrize("name", METHODS)
@given(mu=mus)
def test_a_method_adds_no_energy_to_a_content(name, mu):
    before = layer()
    after = METHODS[name].fuse(before, mu)
    for old, new in zip(before.contents, after.contents):
        assert new.energy() <= old.energy() * (1 + 1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_leaves_its_input_alone(name):
    before = layer()
    saved = [(delta.up.clone(), delta.down.clone()) for delta in (*before.contents, *before.styles)]
    METHODS[name].fuse(before, 1.0)
    for delta, (up, down) in zip((*before.contents, *before.styles), saved):
        assert torch.equal(delta.up, up)
        assert torch.equal(delta.down, down)


@given(mus)
def test_direct_changes_nothing(mu):
    before = layer(with_basis=False)
    assert direct(before, mu) is before


@given(mus)
def test_null_space_never_touches_the_styles(mu):
    before = layer()
    assert null_space(before, mu).styles is before.styles


def test_null_space_at_zero_is_direct():
    before = layer()
    assert all(new is old for new, old in zip(null_space(before, 0.0).contents, before.contents))


def test_null_space_projects_each_content():
    before = layer()
    after = null_space(before, math.inf)
    for old, new in zip(before.contents, after.contents):
        assert (new.dense() @ before.basis).norm() < 1e-5 * (old.dense() @ before.basis).norm()


def test_method_named():
    assert method_named("np") is METHODS["np"]
    with pytest.raises(RequestError, match=r"there is no method 'dircet'\. Did you mean 'direct'\?"):
        method_named("dircet")
    with pytest.raises(RequestError, match=r"there is no method ''\. Known: np, direct"):
        method_named("")
