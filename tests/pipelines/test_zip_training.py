"""Mergers are trained as the paper says, and a run that is stopped ends where one that is not does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lib_nplora.errors import FileError
from lib_nplora.pipelines import zip_training
from lib_nplora.pipelines.beside import SIDES, Beside, Merger, Part
from lib_nplora.pipelines.recording import Call
from lib_nplora.pipelines.zip_state import Loss, State
from lib_nplora.pipelines.zip_training import Recipe, train
from tests.reference import zip_lora

RECIPE = Recipe(lr=0.02, steps=30, alike=0.01)


class Toy(nn.Module):
    """Two layers. Answers a tuple, as diffusion models do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5, bias=False), nn.Linear(5, 4, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.second(torch.tanh(self.first(x))),)


class Case:
    """A toy, two LoRAs of rank 2 and 3 for it, and three rows that each side is asked about."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.toy = Toy().double().requires_grad_(False)
        self.layers = [self.toy.first, self.toy.second]
        self.factors = [
            [
                (0.7 * torch.randn(m.out_features, r).double(), torch.randn(r, m.in_features).double())
                for m in self.layers
            ]
            for r in (2, 3)
        ]
        self.inputs = [torch.randn(3, 6).double() for _ in SIDES]
        self.calls = {side: [Call((x,), {})] for side, x in zip(SIDES, self.inputs)}
        self.mergers = [Merger.ones(m.in_features, m.weight) for m in self.layers]

    @property
    def beside(self) -> Beside:
        return Beside(
            {
                layer: [
                    Part(side, *own[number], self.mergers[number].of(side)) for side, own in zip(SIDES, self.factors)
                ]
                for number, layer in enumerate(self.layers)
            }
        )

    def train(self, recipe: Recipe = RECIPE, *more) -> list[Loss]:
        beside = self.beside
        with beside.running():
            return train(self.toy, beside, self.mergers, self.calls, recipe, *more)

    @property
    def found(self) -> list[list[np.ndarray]]:
        return [[merger.of(side).detach().numpy() for merger in self.mergers] for side in SIDES]


@pytest.mark.parametrize("alike", [0, 0.01, 1])
def test_mergers_are_those_of_an_independent_descent(alike):
    case = Case()
    losses = case.train(replace(RECIPE, alike=alike))
    expected = zip_lora.mergers(
        [layer.weight.numpy() for layer in case.layers],
        [[(up @ down).numpy() for up, down in own] for own in case.factors],
        [x.numpy() for x in case.inputs],
        RECIPE.lr,
        RECIPE.steps,
        alike,
    )
    for ours, theirs in zip(case.found, expected):
        for one, other in zip(ours, theirs):
            np.testing.assert_allclose(one, other, atol=1e-9)
            assert np.abs(one - 1).max() > 0.1
    assert len(losses) == RECIPE.steps
    assert losses[-1].content + losses[-1].style < 0.5 * (losses[0].content + losses[0].style) or alike == 1
    assert losses[0].alike == pytest.approx(alike * 2)


def test_at_the_published_rate_they_hardly_move():
    case = Case()
    case.train(replace(RECIPE, lr=5e-5, steps=100))
    moved = max(float(np.abs(one - 1).max()) for side in case.found for one in side)
    assert 0.001 < moved < 0.006


def test_a_side_alone_is_that_side_and_nothing_is_left_behind():
    case, x = Case(), torch.randn(2, 6).double()
    plain = case.toy(x)[0]
    beside = case.beside
    with torch.no_grad():
        case.mergers[0].content.mul_(3)
    with beside.running():
        for side, own in zip(SIDES, case.factors):
            weights = [layer.weight + up @ down for layer, (up, down) in zip(case.layers, own)]
            with beside.alone(side):
                torch.testing.assert_close(case.toy(x)[0], torch.tanh(x @ weights[0].T) @ weights[1].T)
        assert not torch.allclose(case.toy(x)[0], plain)
    assert torch.equal(case.toy(x)[0], plain)
    assert not any(layer._forward_hooks for layer in case.layers)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)])
def test_a_convolution_s_update_runs_beside_it(kernel):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, kernel, stride=2, padding=1)
    up, down = torch.randn(4, 2), torch.randn(2, 3 * kernel[0] * kernel[1])
    x = torch.randn(2, 3, 8, 8)
    with Beside({conv: [Part("style", up, down)]}).running():
        found = conv(x)
    changed = conv.weight + (up @ down).reshape(conv.weight.shape)
    torch.testing.assert_close(found, nn.functional.conv2d(x, changed, conv.bias, 2, 1), atol=1e-5, rtol=1e-4)


class Stopped(Exception):
    """The test stops the training."""


def stop_at(step: int):
    def stepped(done: int, loss: Loss) -> None:
        if done == step:
            raise Stopped

    return stepped


def test_a_run_that_was_stopped_twice_ends_as_one_that_was_not(tmp_path):
    whole, state = Case(), State(tmp_path / "both.training", "this run")
    expected = whole.train()
    for step in (13, 24):
        with pytest.raises(Stopped):
            Case().train(RECIPE, state, stop_at(step))
    steps = []
    last = Case()
    losses = last.train(RECIPE, state, lambda done, loss: steps.append(done))
    assert steps == list(range(21, RECIPE.steps + 1))
    assert losses == expected
    for ours, theirs in zip(last.found, whole.found):
        assert all(np.array_equal(one, other) for one, other in zip(ours, theirs))


def test_what_is_left_of_another_run_is_not_gone_on_from(tmp_path):
    state = State(tmp_path / "both.training", "this run")
    Case().train(replace(RECIPE, steps=zip_training.SAVED_EVERY), state)
    state.check()
    with pytest.raises(FileError, match=r"both\.training' is what is left of a run .* or delete it to begin anew"):
        State(state.path, "another run").check()
    for damage in (state.path.read_bytes()[:100], b"", b"no state"):
        state.path.write_bytes(damage)
        with pytest.raises(FileError, match=r"both\.training' cannot be read .*delete it to begin anew"):
            Case().train(RECIPE, state)


def test_every_call_is_learnt_from_before_any_comes_again():
    calls = [Call((number,), {}) for number in range(7)]
    chosen = [zip_training.chosen(calls, step, seed=3).args[0] for step in range(21)]
    assert [sorted(chosen[start : start + 7]) for start in (0, 7, 14)] == [list(range(7))] * 3
    assert chosen[:7] != chosen[7:14]
