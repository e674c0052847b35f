"""Deltas without factors: the same algebra as with them, and factors where there are some after all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib_nplora.maths.delta import placed, total, whole
from lib_nplora.maths.dense import EXACT, DenseDelta
from lib_nplora.maths.lowrank import LowRankDelta
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.maths.subspace import overlap, project_out, project_out_output, right_svd, truncated

from .. import reference

SHAPE = (48, 4, 3, 3)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def low_rank(out: int = 48, in_: int = 36, rank: int = 3, seed: int = 0) -> LowRankDelta:
    return LowRankDelta(normal(out, rank, seed=seed), normal(rank, in_, seed=seed + 1))


def test_a_tensor_of_any_shape_is_a_matrix_that_remembers_it():
    for shape in ((48, 36), SHAPE, (48,)):
        tensor = normal(*shape)
        delta = DenseDelta.of(tensor.to(torch.float16))
        assert torch.equal(delta.tensor(), tensor.to(torch.float16).float())
        assert delta.shape == (48, 1 if len(shape) == 1 else 36)
        assert delta.kernel == shape[2:]
        assert delta.has_input_side == (len(shape) > 1)


def test_both_forms_agree():
    factors = low_rank()
    dense = DenseDelta.of(factors.dense())
    basis = right_svd([low_rank(seed=5)]).basis(RankRule())
    assert dense.energy() == pytest.approx(factors.energy(), rel=1e-6)
    assert overlap(dense, basis) == pytest.approx(overlap(factors, basis), rel=1e-5)
    for change in (
        lambda delta: delta.scaled(-0.7),
        lambda delta: delta.rows(5, 20),
        lambda delta: delta.inside(basis),
        lambda delta: project_out(delta, basis, 0.4),
        lambda delta: project_out_output(delta, right_svd([low_rank(seed=5).transposed()]).basis(RankRule()), 0.4),
        lambda delta: delta.on_output(lambda columns: columns.cumsum(1)),
        lambda delta: delta.transposed(),
        whole,
        lambda delta: placed(delta, 2, 60),
    ):
        assert torch.allclose(change(dense).dense(), change(factors).dense(), atol=1e-5)


def test_a_sum_keeps_factors_as_long_as_it_can():
    first, second, whole = low_rank(), low_rank(seed=3), DenseDelta.of(normal(48, 36, seed=9))
    assert isinstance(total([first, second]), LowRankDelta)
    summed = total([first, whole, second])
    assert isinstance(summed, DenseDelta)
    expected = first.dense() + whole.matrix + second.dense()
    assert torch.allclose(summed.dense(), expected, atol=1e-5)
    assert torch.equal(whole.matrix, normal(48, 36, seed=9))
    assert total([whole]) is whole


def test_a_sum_of_what_is_stored_in_half_precision_is_none():
    """As of slices of a layer, some of which have factors."""
    half, factors = DenseDelta.of(normal(48, 36)).stored(torch.bfloat16), low_rank()
    assert half.matrix.dtype == torch.bfloat16
    for deltas in ([half, factors], [half, half]):
        summed = total(deltas).dense()
        assert summed.dtype == torch.float32
        assert torch.allclose(summed, sum(delta.dense().float() for delta in deltas), atol=1e-5)


@pytest.mark.parametrize("shape", [(48, 36), (36, 48)])
@pytest.mark.parametrize("cut", ["all", "5", "90%"])
def test_a_style_without_factors_gives_all_but_a_millionth_of_its_energy(shape, cut):
    """Whatever lies below that share of the energy is not among its directions."""
    u, v = torch.linalg.qr(normal(shape[0], 36)).Q, torch.linalg.qr(normal(shape[1], 36, seed=1)).Q
    s = torch.logspace(0, -5, 36)
    style = DenseDelta.of((u * s) @ v.T)
    found = right_svd([style])
    kept = reference.cut(s.numpy(), "all", reference.LOST)
    assert len(found.s) == kept < 36
    assert np.allclose(found.s, s[:kept], rtol=1e-4)
    basis = found.basis(RankRule.parse(cut)).double()
    assert torch.allclose(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64), atol=1e-5)
    k = reference.cut(s[:kept].double().numpy(), cut)
    assert basis.shape[1] == k
    expected = v[:, :k].double() @ v[:, :k].double().T
    assert torch.allclose(basis @ basis.T, expected, atol=1e-3)


def test_styles_of_both_forms_are_stacked():
    factors, dense = low_rank(20), DenseDelta.of(low_rank(30, seed=7).dense())
    basis = right_svd([factors, dense]).basis(RankRule())
    expected = reference.basis([factors.dense().double().numpy(), dense.matrix.double().numpy()])
    assert np.allclose(basis @ basis.T, expected @ expected.T, atol=1e-4)


@pytest.mark.parametrize("shape", [(64, 64), (64, 16, 3, 3), (160, 64)])
def test_factors_are_found_where_there_are_some(shape):
    matrix = low_rank(shape[0], int(np.prod(shape[1:])), rank=9).dense()
    found = DenseDelta.of(matrix.reshape(shape)).factored()
    assert found is not None
    assert found.rank == 9
    assert found.kernel == shape[2:]
    error = (found.dense() - matrix).square().sum() / matrix.square().sum()
    assert error <= 10 * EXACT


def test_no_factors_are_made_up():
    """Not for a full rank, one that is nearly low, one above a quarter, nothing, or a vector."""
    nearly = low_rank(64, 64).dense() + 1e-4 * normal(64, 64)
    for matrix in (normal(64, 64), nearly, low_rank(64, 64, rank=17).dense(), torch.zeros(64, 64), normal(64)):
        assert DenseDelta.of(matrix).factored() is None


@pytest.mark.parametrize("shape", [(320, 320), (640, 160), (160, 1440)])
def test_a_full_rank_is_told_from_a_few_rows_and_columns(shape, monkeypatch):
    """No sketch is made of what has no factors: of noise, of a Kronecker product, of scaled rows of a weight."""
    weight = normal(*shape)
    kron = torch.kron(normal(4, 4, seed=1), normal(shape[0] // 4, shape[1] // 4, seed=2))
    decomposed = weight * (0.1 * normal(shape[0], 1, seed=3)) + low_rank(*shape).dense()
    monkeypatch.setattr(torch, "randn", None)
    for matrix in (weight, kron, decomposed):
        assert DenseDelta.of(matrix).factored() is None


def test_a_sparse_delta_is_found_too():
    """All the energy in a few entries, where a sketch could look past it."""
    matrix = torch.zeros(64, 64)
    matrix[3, 60] = matrix[50, 2] = 1
    found = DenseDelta.of(matrix).factored()
    assert found is not None
    assert found.rank == 2
    assert torch.allclose(found.dense(), matrix, atol=1e-6)


@pytest.mark.parametrize("make", [lambda: DenseDelta.of(normal(*SHAPE)), lambda: low_rank(rank=20)])
def test_truncation_is_the_nearest_of_its_rank(make):
    delta = make()
    expected, _ = reference.truncated(delta.dense().double().numpy(), 6)
    found = truncated(delta, 6)
    assert found.rank == 6
    assert found.kernel == delta.kernel
    assert reference.error(found.dense(), expected) < 1e-5
    small = low_rank(rank=2)
    assert truncated(small, 6) is small


def test_values_that_are_not_finite_show():
    matrix = normal(48, 36)
    assert DenseDelta.of(matrix).is_finite
    matrix[1, 2] = float("inf")
    assert not DenseDelta.of(matrix).is_finite


@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_a_delta_made_whole_remembers_its_layer(kernel):
    factors = LowRankDelta(normal(48, 3), normal(3, 36, seed=1), kernel)
    made = whole(factors)
    assert torch.equal(made.dense(), factors.dense())
    assert made.layer_shape == ((48, 4, 3, 3) if kernel else (48, 36))
    assert made.kernel == factors.kernel
    assert whole(made) is made


def test_a_transposed_matrix_is_that_of_a_linear_layer():
    delta = DenseDelta.of(normal(*SHAPE)).transposed()
    assert torch.equal(delta.matrix, normal(*SHAPE).reshape(48, 36).T)
    assert (delta.shape, delta.kernel, delta.layer_shape) == ((36, 48), (), (36, 48))


def test_the_output_side_keeps_the_layer_s_shape():
    delta = DenseDelta.of(normal(*SHAPE)).on_output(lambda columns: -columns)
    assert torch.equal(delta.tensor(), -normal(*SHAPE))
