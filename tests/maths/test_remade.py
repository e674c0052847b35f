"""Deltas that are not kept: the same numbers as if they were, each time that they are made."""

from __future__ import annotations

import pytest
import torch

from lib_nplora.maths.delta import placed, total, whole
from lib_nplora.maths.dense import DenseDelta
from lib_nplora.maths.lowrank import LowRankDelta
from lib_nplora.maths.remade import Making, Remade
from lib_nplora.maths.subspace import project_out

SHAPE = (8, 2, 3, 3)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Host:
    """Makes an update, and counts how often, and where."""

    def __init__(self, shape: tuple[int, ...] = SHAPE, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        self.tensor = normal(*shape, seed=seed).to(dtype)
        self.asked: list[torch.device | None] = []

    def delta(self, weight: float = 1.0) -> Remade:
        return Remade(
            tuple(self.tensor.shape), [(Making(self._update, 100, float(self.tensor.double().square().sum())), weight)]
        )

    def _update(self, device: torch.device | None) -> torch.Tensor:
        self.asked.append(device)
        return self.tensor.to(device or "cpu")


FACTORS = LowRankDelta(normal(8, 2, seed=1), normal(2, 18, seed=2), (3, 3))


def test_it_is_the_matrix_that_the_host_makes():
    host = Host()
    made, kept = host.delta(), DenseDelta.of(host.tensor)
    assert (made.shape, made.kernel, made.has_input_side, made.nbytes) == ((8, 18), (3, 3), True, 100)
    assert host.asked == []
    for change in (
        lambda delta: delta,
        lambda delta: delta.scaled(-0.7),
        lambda delta: delta.rows(1, 3),
        lambda delta: delta.on_input(lambda rows: rows.cumsum(1)),
        lambda delta: delta.transposed(),
        lambda delta: placed(delta, 2, 60),
        whole,
    ):
        assert torch.allclose(change(made).dense(), change(kept).dense(), atol=1e-6)
    assert made.energy() == pytest.approx(kept.energy(), rel=1e-6)
    assert host.asked == [torch.device("cpu")]


def test_what_is_kept_is_made_anew_each_time():
    host = Host()
    made = host.delta().scaled(0.5)
    assert torch.equal(made.matrix, (0.5 * host.tensor).float().flatten(1))
    kept = made.stored(torch.float16)
    assert "matrix" in vars(made)
    assert "matrix" not in vars(kept)
    host.asked.clear()
    for device in (None, torch.device("cpu")):
        tensor = kept.tensor_on(device)
        assert (tensor.dtype, tensor.shape) == (torch.float32, SHAPE)
        assert torch.equal(tensor, (0.5 * host.tensor).float())
    assert host.asked == [None, torch.device("cpu")]
    assert "matrix" not in vars(kept)
    assert torch.equal(kept.tensor(), placed(kept, 0, SHAPE[0]).tensor())
    assert "matrix" not in vars(kept)


def test_energy_and_a_sum_with_factors_take_no_matrix():
    host = Host()
    scaled = host.delta(0.5).scaled(-2.0)
    assert scaled.energy() == pytest.approx(DenseDelta.of(host.tensor).energy(), rel=1e-6)
    assert isinstance(total([scaled, FACTORS]), Remade)
    assert host.asked == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_a_sum_with_factors_is_made_as_one(dtype):
    one, other = Host(dtype=dtype), Host(seed=5, dtype=dtype)
    summed = total([FACTORS, one.delta(0.3), other.delta(), FACTORS]).scaled(2)
    expected = 0.6 * one.tensor.float() + 2 * other.tensor.float() + 4 * FACTORS.dense().reshape(SHAPE)
    assert isinstance(summed, Remade)
    for tensor in (summed.tensor(), summed.stored(torch.float16).tensor_on(None)):
        assert torch.allclose(tensor, expected, atol=1e-2 if dtype == torch.float16 else 1e-5)
    assert torch.equal(one.tensor, normal(*SHAPE).to(dtype))
    assert summed.nbytes == 200 + 2 * FACTORS.nbytes


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(("k", "is_remade"), [(2, True), (8, False)])
def test_a_projection_adds_factors_unless_they_are_larger_than_the_matrix(beta, k, is_remade):
    host = Host()
    basis = torch.linalg.qr(normal(18, k, seed=3)).Q
    projected = project_out(host.delta(0.5), basis, beta)
    expected = project_out(DenseDelta.of(0.5 * host.tensor), basis, beta)
    assert isinstance(projected, Remade) == (is_remade or not beta)
    assert torch.allclose(projected.dense(), expected.dense(), atol=1e-6)
    assert projected.energy() == pytest.approx(expected.energy(), rel=1e-5)
    assert len(host.asked) == 1
    assert torch.allclose(projected.stored(torch.float32).dense(), expected.dense(), atol=1e-6)


def test_a_sum_with_a_matrix_is_a_matrix():
    host, kept = Host(), DenseDelta.of(normal(*SHAPE, seed=7))
    summed = total([kept, host.delta()])
    assert not isinstance(summed, Remade)
    assert torch.allclose(summed.dense(), kept.matrix + host.tensor.float().flatten(1), atol=1e-6)
