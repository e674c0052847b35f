"""Rank correlation by hand, and how far a picture moved."""

from __future__ import annotations

import pytest
import torch

from lab import shipped
from lab.judge import Judge
from lab.prediction import DIRECT, HARD, LOOK_AT, at_work, changed, fused, layers, rank_correlation, ranks, weights
from lab.sample import open_pipeline
from lib_nplora.pipelines import Pair


def test_ranks_of_ties_are_shared():
    assert ranks([3.0, 1.0, 3.0, 0.0]).tolist() == [3.5, 2.0, 3.5, 1.0]


@pytest.mark.parametrize(
    ("other", "expected"), [([10, 100, 1000, 1e9], 1.0), ([4, 3, 2, 1], -1.0), ([1, 4, 2, 3], 0.4)]
)
def test_only_the_order_counts(other, expected):
    assert rank_correlation([1, 2, 3, 4], other) == pytest.approx(expected)


def test_a_picture_that_stays_has_not_changed():
    panel = [Judge(["fox", "lion"], ["neon", "noto"]).eval()]
    images = torch.rand(2, 3, 48, 48)
    assert changed(panel, images, images) == pytest.approx(0, abs=1e-6)
    assert changed(panel, images, 1 - images) > 1e-3


def test_what_hard_takes_from_the_layers_outputs():
    """Held against the inputs that a hook of the test's own keeps, and products written out."""
    pipe = open_pipeline(shipped.BASE)
    pair = Pair(pipe, shipped.lora("fox"), shipped.lora("neon"))
    with pair.fuse(**HARD.settings):
        hard = weights(pipe)
    with pair.fuse(**DIRECT.settings):
        direct = weights(pipe)
    energies = {name: torch.zeros(2, 2) for name in direct if not torch.equal(direct[name], hard[name])}
    assert energies

    def add(name: str, module: torch.nn.Module, x: torch.Tensor) -> None:
        rows = x.flatten(0, -2)
        if isinstance(module, torch.nn.Conv2d):
            patches = torch.nn.functional.unfold(x, module.kernel_size, padding=module.padding, stride=module.stride)
            rows = patches.movedim(1, -1).flatten(0, -2)
        for place, matrix in enumerate((direct[name] - hard[name], direct[name])):
            energies[name][place] += torch.tensor([(rows @ matrix.T).square().sum(), len(rows)])

    modules = layers(pipe)
    hooks = [
        modules[name].register_forward_pre_hook(lambda module, args, name=name: add(name, module, args[0]))
        for name in energies
    ]
    fused(pipe, pair, "fox", DIRECT, LOOK_AT, 2)
    for hook in hooks:
        hook.remove()
    removed, put_out = torch.stack([both[:, 0] / both[:, 1] for both in energies.values()]).sum(0)
    assert at_work(pipe, pair, "fox", hard, 2) == pytest.approx((removed / put_out).sqrt().item(), rel=1e-4)
    assert at_work(pipe, pair, "fox", direct, 2) == 0
