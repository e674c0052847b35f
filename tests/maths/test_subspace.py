import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_nplora.maths.lowrank import LowRankDelta, concat
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.maths.subspace import RightSvd, overlap, project_out, project_out_output, projection_strength, right_svd

from .. import reference
from ..matrices import orthonormal, randn, random_delta, with_spectrum

ALL = RankRule()
RANKS = [1, 2, 4, 8, 32, 64, 128]
seeds = st.integers(0, 2**20)
scales = st.sampled_from([1e-4, 0.01, 1.0, 100.0, 1e4])
styles = st.builds(random_delta, st.integers(1, 24), st.just(20), st.integers(1, 24), seeds, scales)
contents = st.builds(random_delta, st.just(24), st.just(20), st.integers(1, 24), seeds, scales)
betas = st.floats(0, 1)


def dense(delta: LowRankDelta) -> np.ndarray:
    return reference.dense(delta.up, delta.down)


def projectors_differ_by(basis: torch.Tensor, v: np.ndarray) -> float:
    """Bases of one subspace are equal up to rotation, so their projectors are compared. (in, k) both."""
    ours = basis.double().numpy()
    assert ours.shape == v.shape
    return float(np.linalg.norm(ours @ ours.T - v @ v.T))


def check(svd: RightSvd, deltas: list[LowRankDelta], tolerance: float = 1e-5) -> None:
    """Against numpy's SVD of the dense stack."""
    _, s, vh = np.linalg.svd(np.concatenate([dense(delta) for delta in deltas]), full_matrices=False)
    rank = reference.cut(s, "all")
    assert svd.s.dtype == svd.vh.dtype == torch.float32
    assert svd.s.shape == (rank,)
    assert np.all(np.diff(svd.s.numpy()) <= 0)
    assert reference.error(svd.s.numpy(), s[:rank]) < 1e-6
    assert torch.allclose(svd.vh.double() @ svd.vh.double().T, torch.eye(rank).double(), atol=1e-6)
    assert projectors_differ_by(svd.basis(ALL), vh[:rank].T) < tolerance


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize(("out", "in_"), [(160, 144), (144, 160), (48, 200), (200, 48)])
def test_equals_the_dense_svd(rank, out, in_):
    delta = random_delta(out, in_, rank, seed=rank)
    check(right_svd([delta]), [delta])


@given(st.lists(styles, min_size=1, max_size=3))
def test_equals_the_dense_svd_of_any_stack(deltas):
    """As far as no singular value is so close to numerical rank that rounding decides about it."""
    s = np.linalg.svd(np.concatenate([dense(delta) for delta in deltas]), compute_uv=False)
    if not np.any((s > s[0] * 2.0**-23) & (s < s[0] * 2.0**-17)):
        check(right_svd(deltas), deltas)


@pytest.mark.parametrize("deficient", ["up", "down", "both"])
@pytest.mark.parametrize("rank", [2, 8, 32, 128])
def test_a_deficient_factor_adds_no_direction(deficient, rank):
    """The paper's plain QR of down^T would span `rank` directions where only half exist."""
    up, down = randn(160, rank, seed=1), randn(rank, 144, seed=2)
    if deficient in ("up", "both"):
        up[:, rank // 2 :] = up[:, : rank - rank // 2].flip(1)
    if deficient in ("down", "both"):
        down[rank // 2 :] = down[: rank - rank // 2]
    delta = LowRankDelta(up, down)
    svd = right_svd([delta])
    assert len(svd.s) == np.linalg.matrix_rank(dense(delta), tol=1e-4)
    check(svd, [delta])


@pytest.mark.parametrize("zero", ["up", "down", "both", "columns"])
def test_zeros(zero):
    up, down = randn(20, 6, seed=1), randn(6, 30, seed=2)
    if zero in ("up", "both"):
        up.zero_()
    if zero in ("down", "both"):
        down.zero_()
    if zero == "columns":
        up[:, :2], down[3:5] = 0, 0
    delta = LowRankDelta(up, down)
    svd = right_svd([delta])
    assert len(svd.s) == (2 if zero == "columns" else 0)
    assert svd.basis(RankRule(count=4)).shape == (30, len(svd.s))
    assert svd.vh.isfinite().all()
    check(svd, [delta])


@pytest.mark.parametrize("decades", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("rank", [8, 32])
def test_weak_directions_are_as_exact_as_strong_ones(decades, rank):
    """Singular values over `decades` decades: float32 factors, but no float32 in between."""
    delta = LowRankDelta(*with_spectrum(96, 80, list(np.logspace(0, -decades, rank)), seed=rank))
    svd = right_svd([delta])
    check(svd, [delta])
    _, _, vh = np.linalg.svd(dense(delta))
    for k in range(1, rank) if decades else ():
        assert projectors_differ_by(svd.basis(RankRule(count=k)), vh[:k].T) < 1e-5


@pytest.mark.parametrize("stretch", [1e-6, 1e-3, 1.0, 1e3, 1e6])
def test_uneven_factors(stretch):
    """Columns of `up` from 1 to `stretch`, rows of `down` the other way round: the delta is well conditioned."""
    up, down = with_spectrum(96, 80, list(np.linspace(2, 1, 16)), seed=3)
    uneven = torch.logspace(0, math.log10(stretch), 16)
    delta = LowRankDelta(up * uneven, down / uneven[:, None])
    check(right_svd([delta]), [delta])


@pytest.mark.parametrize("condition", [1e1, 1e3, 1e5, 1e7])
def test_nearly_dependent_columns(condition):
    """Where the squares of the columns are too close to singular to be used."""
    up = orthonormal(96, 16, 1) * torch.logspace(0, -math.log10(condition), 16).double() @ orthonormal(16, 16, 2)
    delta = LowRankDelta(up.float(), orthonormal(80, 16, 3).T.float())
    svd = right_svd([delta])
    s = np.linalg.svd(dense(delta), compute_uv=False)
    assert len(svd.s) == reference.cut(s, "all")
    check(svd, [delta])


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("side", ["up", "down"])
def test_nearly_dependent_columns_made_up_for_on_the_other_side(condition, side):
    """One factor is close to singular, the other the more so the other way round: no direction of the delta is weak."""
    mix, spread = orthonormal(16, 16, 2), torch.logspace(0, -math.log10(condition), 16).double()
    up, down = orthonormal(96, 16, 1) * spread @ mix, mix.T @ (orthonormal(80, 16, 3) / spread).T
    if side == "down":
        up, down = orthonormal(96, 16, 1) / spread @ mix, mix.T @ (orthonormal(80, 16, 3) * spread).T
    delta = LowRankDelta(up.float(), down.float())
    check(right_svd([delta]), [delta])


@given(styles, seeds)
def test_the_choice_of_factors_changes_nothing(delta, seed):
    """up G, G^-1 down for an invertible G, up to float32 rounding of the new factors."""
    g = randn(delta.rank, delta.rank, seed=seed).double() + 3 * delta.rank**0.5 * torch.eye(delta.rank).double()
    other = LowRankDelta(
        (delta.up.double() @ g).float(), torch.linalg.solve(g, delta.down.double()).float(), delta.kernel
    )
    svd, again = right_svd([delta]), right_svd([other])
    if svd.s[-1] > svd.s[0] * 1e-3 and len(svd.s) == len(again.s):
        assert projectors_differ_by(again.basis(ALL), svd.basis(ALL).double().numpy()) < 1e-3
        assert torch.allclose(again.s, svd.s, rtol=1e-3)


@given(st.lists(styles, min_size=2, max_size=3))
def test_a_stack_spans_what_each_of_its_parts_spans(deltas):
    basis = right_svd(deltas).basis(ALL).double().numpy()
    strongest = np.linalg.norm(np.concatenate([dense(delta) for delta in deltas]), 2)
    for delta in map(dense, deltas):
        assert np.linalg.norm(delta - delta @ basis @ basis.T) < 1e-5 * strongest


def test_ties_are_kept_whole():
    """k inside a repeated singular value: any vector of its plane would do, so all of it is taken."""
    delta = LowRankDelta(*with_spectrum(40, 36, [3.0, 2.0, 2.0, 2.0, 1.0], seed=7))
    svd = right_svd([delta])
    _, _, vh = np.linalg.svd(dense(delta))
    for k in (2, 3, 4):
        assert projectors_differ_by(svd.basis(RankRule(count=k)), vh[:4].T) < 1e-5


def test_size_is_counted():
    svd = right_svd([random_delta(10, 20, 4, 0)])
    assert svd.nbytes == 4 * (4 + 4 * 20)


@pytest.mark.parametrize(("mu", "beta"), [(0, 0), (0.5, 1 / 3), (1, 0.5), (9, 0.9), (math.inf, 1)])
def test_projection_strength(mu, beta):
    assert projection_strength(mu) == pytest.approx(beta)


@given(st.floats(0, 1e300), st.floats(0, 1e300))
def test_projection_strength_grows_with_mu(mu, other):
    low, high = sorted((mu, other))
    assert 0 <= projection_strength(low) <= projection_strength(high) <= projection_strength(math.inf)


@given(contents, styles, betas)
def test_projection_equals_the_dense_formula(content, style, beta):
    v = right_svd([style]).basis(ALL)
    projected = project_out(content, v, beta)
    v64 = v.double().numpy()
    expected = dense(content) @ (np.eye(20) - beta * v64 @ v64.T)
    assert np.linalg.norm(dense(projected) - expected) < 1e-5 * np.linalg.norm(dense(content))
    assert projected.up is content.up


@given(contents, styles)
def test_projection_of_strength_zero_is_the_delta_itself(content, style):
    assert project_out(content, right_svd([style]).basis(ALL), 0.0) is content


@given(contents, styles)
def test_hard_projection_leaves_nothing_inside(content, style):
    v = right_svd([style]).basis(ALL)
    inside = np.linalg.norm(dense(project_out(content, v, 1.0)) @ v.double().numpy()) ** 2
    assert inside < 1e-11 * np.linalg.norm(dense(content)) ** 2


@given(contents, styles)
def test_hard_projection_twice_is_once(content, style):
    v = right_svd([style]).basis(ALL)
    once = project_out(content, v, 1.0)
    twice = project_out(once, v, 1.0)
    assert np.linalg.norm(dense(twice) - dense(once)) < 1e-5 * np.linalg.norm(dense(content))


@given(contents, styles, betas)
def test_what_is_outside_is_not_touched(content, style, beta):
    v = right_svd([style]).basis(ALL)
    outside = project_out(content, v, 1.0)
    again = project_out(outside, v, beta)
    assert np.linalg.norm(dense(again) - dense(outside)) < 1e-5 * np.linalg.norm(dense(content))


@given(contents, styles, betas)
def test_removed_energy_follows_from_the_overlap(content, style, beta):
    v = right_svd([style]).basis(ALL)
    left = project_out(content, v, beta).energy() / content.energy()
    assert 1 - left == pytest.approx((1 - (1 - beta) ** 2) * overlap(content, v), abs=1e-4)


@given(contents, styles)
def test_overlap_is_the_share_inside(content, style):
    v = right_svd([style]).basis(ALL)
    share = np.linalg.norm(dense(content) @ v.double().numpy()) ** 2 / np.linalg.norm(dense(content)) ** 2
    assert overlap(content, v) == pytest.approx(share, abs=1e-4)
    assert 0 <= overlap(content, v) <= 1


@pytest.mark.parametrize("rank", RANKS)
def test_overlap_with_itself_is_whole(rank):
    delta = random_delta(160, 144, rank, rank)
    v = right_svd([delta]).basis(ALL)
    assert overlap(delta, v) == pytest.approx(1, abs=1e-5)
    assert overlap(delta, v) <= 1
    assert overlap(concat([delta, delta.scaled(2)]), v) == pytest.approx(1, abs=1e-5)


def test_overlap_of_nothing_is_none():
    zero = LowRankDelta(torch.zeros(4, 2), torch.zeros(2, 6))
    v = right_svd([random_delta(4, 6, 2, 0)]).basis(ALL)
    assert overlap(zero, v) == 0
    assert overlap(random_delta(4, 6, 2, 1), right_svd([zero]).basis(ALL)) == 0


@pytest.mark.parametrize(("rank", "expected"), [(8, 8 / 640), (32, 32 / 640)])
def test_independent_updates_overlap_by_rank_over_in(rank, expected):
    """What the product tells its users to expect of a pair that was trained apart."""
    v = right_svd([random_delta(64, 640, rank, 1)]).basis(ALL)
    assert overlap(random_delta(64, 640, 32, 5), v) == pytest.approx(expected, rel=0.25)


@given(contents, styles, betas)
def test_the_output_side_is_the_input_side_of_the_transposed(content, style, beta):
    """(I - beta U U^T) dW = (dW^T (I - beta U U^T))^T."""
    basis = right_svd([LowRankDelta(randn(24, style.rank, seed=9), style.down).transposed()]).basis(ALL)
    ours = project_out_output(content, basis, beta)
    other = project_out(content.transposed(), basis, beta).transposed()
    assert reference.error(dense(ours), dense(other)) < 1e-6
    u = basis.double().numpy()
    expected = dense(content) - beta * u @ (u.T @ dense(content))
    assert np.linalg.norm(dense(ours) - expected) < 1e-5 * np.linalg.norm(dense(content))
    assert torch.equal(ours.down, content.down)


def test_no_strength_is_no_change_on_the_output_side_either():
    content = random_delta(24, 20, 3, 1)
    assert project_out_output(content, orthonormal(24, 2, 5).float(), 0.0) is content
