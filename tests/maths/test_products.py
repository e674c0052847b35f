import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lib_nplora.maths.products import Factors, entrywise, kronecker, least, trivial

from .. import reference
from ..matrices import randn

sizes = st.integers(1, 9)
seeds = st.integers(0, 2**20)


def factors(out: int, in_: int, rank: int, seed: int) -> Factors:
    return randn(out, rank, seed=seed).double(), randn(rank, in_, seed=seed + 1).double()


def matrix(pair: Factors) -> np.ndarray:
    return pair[0].numpy() @ pair[1].numpy()


@given(sizes, sizes, sizes, sizes, seeds)
def test_entrywise_is_the_product_of_each_entry(out: int, in_: int, r1: int, r2: int, seed: int) -> None:
    one, other = factors(out, in_, r1, seed), factors(out, in_, r2, seed + 2)
    made = entrywise(one, other)
    assert made[0].shape == (out, r1 * r2)
    assert reference.error(matrix(made), matrix(one) * matrix(other)) < 1e-14


@given(st.tuples(sizes, sizes, sizes), st.tuples(sizes, sizes, sizes), seeds)
def test_kronecker_is_that_of_numpy(first: tuple[int, int, int], second: tuple[int, int, int], seed: int) -> None:
    one, other = factors(*first, seed), factors(*second, seed + 2)
    made = kronecker(one, other)
    assert made[0].shape[1] == first[2] * second[2]
    assert reference.error(matrix(made), np.kron(matrix(one), matrix(other))) < 1e-14


@given(sizes, sizes, sizes, seeds)
def test_least_changes_nothing_and_has_no_rank_to_spare(out: int, in_: int, rank: int, seed: int) -> None:
    pair = factors(out, in_, rank, seed)
    made = least(*pair)
    assert made[0].shape[1] == min(out, in_, rank)
    assert reference.error(matrix(made), matrix(pair)) < 1e-14


def test_a_square_matrix_stands_on_the_left() -> None:
    square: Tensor = randn(4, 4, seed=1)
    assert torch.equal(trivial(square)[0], square)
    assert torch.equal(trivial(square)[1], torch.eye(4))
