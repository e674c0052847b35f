"""Plain sums, TIES and DARE."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st
from peft.utils import merge_utils

from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.delta import total
from lib_nplora.maths.dense import DenseDelta
from lib_nplora.methods.sums import dare, direct, ties

from .. import reference
from ..matrices import KEY, random_delta
from .layers import deltas, exact, layer_of, request, run, two_a_side, values


@given(st.floats(0, 100) | st.just(float("inf")))
def test_direct_changes_nothing(mu):
    before = two_a_side()
    made = direct(before, values("direct", mu=mu))
    assert made.contents is before.content.deltas
    assert made.styles is before.style.deltas
    assert made.protected is None


# TIES


def ties_of(matrices, density: float) -> torch.Tensor:
    first, *others = map(DenseDelta.of, matrices)
    made = ties(layer_of([first], others), values("ties", density=density))
    return total(deltas(made)).dense()


@runs(deadline=None)
@given(
    st.integers(2, 4),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([0.1, 0.2, 0.5, 0.83, 1.0]),
    st.integers(0, 999),
)
@pytest.mark.filterwarnings("ignore:The density")
def test_ties_is_peft_s(count, out, in_, density, seed):
    """PEFT trims to the same int(density n) elements, but to none where that is 0: there we keep one.

    It takes the sign of a sum of 0 for positive where we take none of the values: with random ones that happens only
    where all are trimmed. It elects before the weights are in, so they are 1 here.
    """
    matrices = [torch.randn(out, in_, generator=torch.Generator().manual_seed(seed + i)) for i in range(count)]
    ours = ties_of(matrices, density)
    if int(density * out * in_):
        theirs = merge_utils.ties(matrices, torch.ones(count), density, "total")
        assert torch.allclose(ours, theirs, atol=1e-6)
    else:
        assert 1 <= int((ours != 0).sum()) <= count


def test_ties_by_hand():
    """Signs of the sums: +, -, none, +. The third cancels; the fourth is one side's alone."""
    first, second = torch.tensor([[4.0, 1.0, 2.0, 0.0]]), torch.tensor([[2.0, -3.0, -2.0, 5.0]])
    assert ties_of([first, second], 1.0).tolist() == [[3.0, -3.0, 0.0, 5.0]]
    assert ties_of([first, second], 0.5).tolist() == [[4.0, -3.0, 2.0, 5.0]]


def test_ties_counts_weights_in_the_election():
    """A content of 1 against a style of -1: the larger weight has the sign, and the mean is of those that agree."""
    pair = DenseDelta.of(torch.ones(2, 3)), DenseDelta.of(-torch.ones(2, 3))
    assert torch.equal(run(request("ties", 2, 1, density=1.0), *pair).deltas[KEY].dense(), torch.full((2, 3), 2.0))
    assert torch.equal(run(request("ties", 1, 2, density=1.0), *pair).deltas[KEY].dense(), torch.full((2, 3), -2.0))


@pytest.mark.parametrize("name", ["ties", "dare"])
def test_sparse_methods_keep_the_kernel_and_change_lone_layers_too(name):
    """But no norms and biases."""
    conv = type(random_delta(6, 18, 2, 1))(
        *(getattr(random_delta(6, 18, 2, 1), side) for side in ("up", "down")), (3, 3)
    )
    bias, alone = ModuleKey("bias", "unet"), ModuleKey("alone", "te")
    content = LoraWeights("c", "c", {KEY: conv, bias: DenseDelta.of(torch.ones(4)), alone: conv})
    style = LoraWeights("s", "s", {KEY: conv, bias: DenseDelta.of(torch.ones(4))})
    fused = run(request(name, density=0.25), content, style)
    assert fused.deltas[KEY].kernel == (3, 3)
    assert fused.deltas[KEY].tensor().shape == (6, 2, 3, 3)
    assert torch.equal(fused.deltas[bias].dense(), torch.full((4, 1), 2.0))
    assert 0 < (fused.deltas[alone].dense() != 0).float().mean() < 0.5


# DARE


def thinned(seed: int, density: float, shape: tuple[int, int] = (40, 50)) -> tuple[torch.Tensor, torch.Tensor]:
    ones = DenseDelta.of(torch.ones(*shape))
    made = dare(layer_of([ones], [ones]), values("dare", seed=seed, density=density))
    return made.contents[0].dense(), made.styles[0].dense()


@pytest.mark.parametrize("density", [0.05, 0.3, 0.5, 0.9, 1.0])
def test_dare_keeps_a_share_and_scales_it_up(density):
    for mask in thinned(3, density):
        kept = mask != 0
        assert torch.allclose(mask[kept], torch.tensor(1 / density))
        spread = (density * (1 - density) / mask.numel()) ** 0.5
        assert float(kept.double().mean()) == pytest.approx(density, abs=5 * spread + 1e-12)


def test_dare_is_the_delta_in_the_mean():
    delta = random_delta(20, 30, 3, 1)
    made = [
        dare(layer_of([delta], []), values("dare", seed=seed, density=0.4)).contents[0].dense() for seed in range(2000)
    ]
    mean = torch.stack(made).double().mean(0)
    spread = delta.dense().abs() * (0.6 / 0.4 / 2000) ** 0.5
    assert ((mean - delta.dense()).abs() <= 6 * spread + 1e-6).all()
    assert reference.error(mean, exact(delta)) < 0.05


def test_dare_is_its_seed_s_and_neither_side_has_the_other_s_mask():
    content, style = thinned(1, 0.5)
    assert all(map(torch.equal, thinned(1, 0.5), (content, style)))
    for one, other in ((content, style), (content, thinned(2, 0.5)[0]), (style, thinned(2, 0.5)[1])):
        assert float(((one != 0) == (other != 0)).double().mean()) == pytest.approx(0.5, abs=0.06)


def test_dare_gives_several_loras_of_one_side_their_own_masks():
    ones = DenseDelta.of(torch.ones(40, 50))
    made = dare(layer_of([ones, ones], [ones, ones]), values("dare", density=0.5))
    masks = [delta.dense() != 0 for delta in deltas(made)]
    for i, mask in enumerate(masks):
        assert all(not torch.equal(mask, other) for other in masks[:i])


def test_dare_does_not_look_at_names_or_weights():
    delta, other = random_delta(20, 30, 3, 1), random_delta(20, 30, 3, 5)
    masks = []
    for name, c in (("lora_unet_a", 1.0), ("diffusion_model.a", -0.5)):
        key = ModuleKey(name, "unet")
        sides = (LoraWeights(role, role, {key: one}) for role, one in (("dog", delta), ("cat", other)))
        masks.append(run(request("dare", c, 0.0, seed=5), *sides).deltas[key].dense() != 0)
    assert torch.equal(*masks)
