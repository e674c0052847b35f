import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lib_nplora.maths.lowrank import LowRankDelta, concat, exact_math

from .. import reference
from ..matrices import randn, random_delta

sizes = st.integers(1, 24)
seeds = st.integers(0, 2**20)
deltas = st.builds(random_delta, sizes, sizes, st.integers(1, 12), seeds, st.floats(1e-4, 1e4))


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> bool:
    return reference.error(actual.double().numpy(), expected.double().numpy()) <= tolerance


def exact(delta: LowRankDelta) -> torch.Tensor:
    return delta.up.double() @ delta.down.double()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("up", "down", "mid", "kernel"),
    [
        ((24, 4), (4, 16), None, ()),
        ((24, 4, 1, 1), (4, 16, 1, 1), None, (1, 1)),
        ((24, 4, 1, 1), (4, 16, 3, 3), None, (3, 3)),
        ((24, 4), (4, 16, 3, 3), None, (3, 3)),
        ((24, 4, 1, 1), (4, 16, 1, 1), (4, 4, 3, 3), (3, 3)),
        ((24, 4, 1, 1), (4, 16, 1, 1), (4, 4, 3, 1), (3, 1)),
        ((24, 4, 1, 1, 1), (4, 16, 3, 3, 3), None, (3, 3, 3)),
    ],
)
def test_from_factors_equals_the_dense_definition(dtype, up, down, mid, kernel):
    factors = [None if shape is None else randn(*shape, seed=i).to(dtype) for i, shape in enumerate((up, down, mid))]
    delta = LowRankDelta.from_factors(*factors, scale=0.3)
    assert delta.kernel == kernel
    assert {delta.up.dtype, delta.down.dtype} == {torch.float32}
    assert reference.error(exact(delta).numpy(), reference.dense(*factors, scale=0.3)) < 1e-6


def test_from_factors_means_what_torch_convolutions_mean():
    """Down (1 x 1), mid (3 x 3), up (1 x 1) one after the other, against one convolution by the delta."""
    up, down, mid = randn(8, 4, 1, 1, seed=1), randn(4, 6, 1, 1, seed=2), randn(4, 4, 3, 3, seed=3)
    image = randn(1, 6, 9, 9, seed=4)
    conv = torch.nn.functional.conv2d
    delta = LowRankDelta.from_factors(up, down, mid)
    assert close(conv(image, delta.dense().reshape(8, 6, *delta.kernel)), conv(conv(conv(image, down), mid), up))


def test_from_factors_refuses_ranks_that_do_not_chain():
    with pytest.raises(ValueError, match=r"\(8, 4\) and down \(3, 6\)"):
        LowRankDelta.from_factors(randn(8, 4, seed=1), randn(3, 6, seed=2))


def test_from_factors_leaves_its_input_alone():
    up, down = randn(8, 4, seed=1).requires_grad_(), randn(4, 6, seed=2).requires_grad_()
    before = up.detach().clone(), down.detach().clone()
    delta = LowRankDelta.from_factors(up, down, scale=2)
    assert not delta.up.requires_grad
    assert not delta.down.requires_grad
    assert torch.equal(up, before[0])
    assert torch.equal(down, before[1])


def test_shape_rank_and_size():
    delta = random_delta(7, 5, 3, 0)
    assert (delta.shape, delta.rank, delta.nbytes) == ((7, 5), 3, 4 * 3 * (7 + 5))


@given(deltas, st.floats(1e-6, 1e6).flatmap(lambda weight: st.sampled_from([weight, -weight, 0])))
def test_scaled(delta, weight):
    assert close(exact(delta.scaled(weight)), weight * exact(delta))
    assert delta.scaled(1) is delta


@given(deltas)
def test_energy_is_the_squared_norm(delta):
    """Up to rounding of what may cancel: the squares of the factors."""
    expected = float(exact(delta).square().sum())
    largest = float(delta.up.norm().square() * delta.down.norm().square())
    assert delta.energy() == pytest.approx(expected, rel=1e-6, abs=1e-6 * largest)


@given(deltas)
def test_energy_is_never_negative(delta):
    """Not even where everything cancels."""
    assert concat([delta, delta.scaled(-1)]).energy() >= 0


@pytest.mark.parametrize(("up", "down"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_nothing_has_no_energy(up, down):
    delta = LowRankDelta(randn(6, 3, seed=1, scale=up), randn(3, 5, seed=2, scale=down))
    assert delta.energy() == 0
    assert torch.equal(delta.balanced().dense(), torch.zeros(6, 5))


@given(sizes, sizes, st.lists(st.integers(1, 6), min_size=1, max_size=4), seeds)
def test_concat_is_the_sum(out, in_, ranks, seed):
    parts = [random_delta(out, in_, rank, seed + 10 * i) for i, rank in enumerate(ranks)]
    total = concat(parts)
    assert total.rank == sum(ranks)
    assert close(exact(total), sum(exact(part) for part in parts))


def test_concat_keeps_a_kernel():
    linear, conv = random_delta(4, 9, 2, 0), LowRankDelta(randn(4, 2, seed=1), randn(2, 9, seed=2), (3, 3))
    assert concat([linear, conv]).kernel == concat([conv]).kernel == (3, 3)
    assert concat([linear, linear]).kernel == ()


@given(deltas, st.lists(st.floats(1e-4, 1e4), min_size=12, max_size=12))
def test_balanced_keeps_the_delta_and_evens_its_sides(delta, stretch):
    uneven = torch.tensor(stretch[: delta.rank])
    skewed = LowRankDelta(delta.up * uneven, delta.down / uneven[:, None], (1, 1))
    balanced = skewed.balanced()
    assert np.array_equal(exact(balanced), exact(skewed))
    used = skewed.up.norm(dim=0) > 0
    ratio = balanced.up.norm(dim=0)[used] / balanced.down.norm(dim=1)[used]
    assert ((ratio > 0.499) & (ratio < 2.001)).all()
    assert balanced.kernel == (1, 1)


def test_balanced_leaves_16_bits_as_they_are():
    """A LoRA file's own, with the scale of alpha = 1 at rank 16: any other ratio rounds them by 2e-4."""
    up, down = randn(640, 16, seed=1, scale=5e-3).half(), randn(16, 640, seed=2, scale=0.03).half()
    balanced = LowRankDelta.from_factors(up, down, scale=1 / 16).balanced()
    for side in (balanced.up, balanced.down):
        assert reference.error(side.half().double().numpy(), side.double().numpy()) < 2e-6


@pytest.mark.parametrize("scale", [1.0, 1 / 8, 1 / 128])
def test_balanced_survives_fp16_where_folding_the_scale_does_not(scale):
    """alpha = 1 at rank 128, and an `up` close to fp16's smallest normal number, as early in training."""
    up, down = randn(64, 8, seed=1, scale=2e-5).half(), randn(8, 64, seed=2).half()
    delta = LowRankDelta.from_factors(up, down, scale=scale)
    expected = reference.dense(up, down, scale=scale)

    def stored(delta: LowRankDelta) -> np.ndarray:
        halves = [side.half() for side in (delta.up, delta.down)]
        assert all(side.isfinite().all() for side in halves)
        return reference.dense(*halves)

    assert reference.error(stored(delta.balanced()), expected) < 1e-3
    if scale == 1 / 128:
        assert reference.error(stored(delta), expected) > 0.1


@given(deltas)
def test_balanced_twice_is_balanced(delta):
    once = delta.balanced()
    ratio = once.up.norm(dim=0) / once.down.norm(dim=1)
    assume(((ratio > 0.51) & (ratio < 1.96)).all())
    assert torch.equal(once.balanced().up, once.up)


def test_exact_math_switches_everything_off():
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), exact_math():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == torch.float32
    assert not product.is_inference()
    with torch.enable_grad(), exact_math():
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_exact_math_warns_of_nothing(recwarn):
    with exact_math():
        pass
    assert not recwarn.list


@given(deltas)
def test_transposed(delta):
    assert close(exact(delta.transposed()), exact(delta).T, 1e-7)
    assert delta.transposed().shape == delta.shape[::-1]


@given(deltas, seeds)
def test_on_output_is_a_map_from_the_left(delta, seed):
    square = randn(delta.shape[0], delta.shape[0], seed=seed)
    changed = delta.on_output(lambda columns: columns @ square.T)
    largest = square.double().norm() * delta.up.double().norm() * delta.down.double().norm()
    assert (exact(changed) - square.double() @ exact(delta)).norm() <= 1e-6 * largest
    assert torch.equal(changed.down, delta.down)


def test_on_output_keeps_a_kernel():
    conv = LowRankDelta(randn(4, 2, seed=1), randn(2, 9, seed=2), (3, 3))
    assert conv.on_output(lambda columns: 2 * columns).kernel == (3, 3)
