"""Training moves the loss, and a run that was stopped goes on as if it had not been."""

from __future__ import annotations

import random

import pytest
import torch

from lab.sample import open_pipeline
from lab.train_base import Plan, picked, train, training_caption
from lab.words import vocabulary


def weights(folder):
    pipe = open_pipeline(folder / "pipeline")
    return {**pipe.unet.state_dict(), **pipe.text_encoder.state_dict()}


def test_a_resumed_run_ends_where_an_unbroken_one_does(noise_pictures, tmp_path):
    plan = Plan(steps=4, cooldown=2, batch=2)
    train(noise_pictures, tmp_path / "whole", plan, None, every=1e9)
    for steps in (2, 4):
        part = Plan(steps=steps, cooldown=2 if steps == 4 else 0, batch=2)
        train(noise_pictures, tmp_path / "parts", part, None, every=1e9)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())


def test_the_loss_falls(noise_pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lab.train_base.REPORT", 4)
    train(noise_pictures, tmp_path, Plan(steps=24, cooldown=0, batch=6), None, every=1e9)
    losses = [float(line.split()[3]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 6
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (3, 8)])
def test_every_picture_is_seen_before_any_comes_again(count, batch):
    seen = [index for step in range(15) for index in picked(step, batch, count)]
    for start in range(0, len(seen) - count, count):
        assert sorted(seen[start : start + count]) == list(range(count))


def test_the_rate_rises_holds_and_falls():
    plan = Plan(steps=1000, cooldown=200)
    rates = [plan.rate(step) for step in (0, 99, 500, 799, 900, 999)]
    assert rates == pytest.approx([1e-5, 1e-3, 1e-3, 1e-3, 5e-4, 2e-5])


def test_training_captions_say_less_now_and_then_and_never_something_unknown():
    chance = random.Random(0)
    captions = {training_caption("cat-face", "noto", chance) for _ in range(400)}
    assert captions == {
        "",
        *(
            f"a {name} animal{where}"
            for name in ("cat face", "sks")
            for where in ("", " in noto style", " in swz style")
        ),
    }
    assert {word for text in captions for word in text.split()} <= set(vocabulary())
