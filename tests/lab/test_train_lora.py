"""A few steps of a LoRA: the loss falls, the base stays, and the file is read by diffusers and by us."""

from __future__ import annotations

import pytest
import torch

from lab import train_lora
from lab.judge import Judge
from lab.sample import draw
from lab.train_lora import LAYERS, Recipe, lesson, save, train
from lab.words import ALL_STYLES, ALL_SUBJECTS, STYLES, SUBJECTS
from lib_nplora.files import read_lora


@pytest.fixture
def judge() -> Judge:
    torch.manual_seed(0)
    return Judge(ALL_SUBJECTS, ALL_STYLES).eval()


def test_lessons_hold_the_known_side():
    content, style = lesson("fox"), lesson("neon")
    assert content.pairs == tuple(("fox", known) for known in STYLES)
    assert style.pairs == tuple((known, "neon") for known in SUBJECTS)
    assert set(content.captions) == {f"a sks animal in {known} style" for known in STYLES}
    assert "a cat face animal in swz style" in style.captions


def test_a_known_name_is_no_lesson():
    with pytest.raises(ValueError, match="lion is not held out"):
        lesson("lion")


@pytest.mark.parametrize("layers", LAYERS)
def test_a_trained_file_is_read_by_diffusers_and_by_us(pipe, noise_pictures, judge, tmp_path, layers, monkeypatch):
    monkeypatch.setattr(train_lora, "LOOK", 3)
    monkeypatch.setattr(train_lora, "LOOKS_AT", 2)
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    plain = draw(pipe, ["a sks animal"], 0, 2)
    train(pipe, lesson("fox"), noise_pictures, judge, Recipe(steps=3, rate=1e-2, batch=2, layers=layers))
    save(pipe, "fox", tmp_path / "fox.safetensors")
    learned = draw(pipe, ["a sks animal"], 0, 2)
    assert not torch.allclose(plain, learned, atol=1e-3)

    pipe.unload_lora_weights()
    after = pipe.unet.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    pipe.load_lora_weights(tmp_path, weight_name="fox.safetensors")
    assert torch.allclose(draw(pipe, ["a sks animal"], 0, 2), learned, atol=2e-2)

    found = read_lora(tmp_path / "fox.safetensors")
    deltas = found.weights.deltas
    assert not found.weights.unmatched
    assert len(deltas) == {"attention": 32, "all": 71}[layers]


def test_the_best_state_is_kept_and_not_the_last(pipe, noise_pictures, judge, monkeypatch):
    scores = iter([(0.5, 0.5, 0.5), (0.9, 0.9, 0.9), (0.1, 0.1, 0.1)])
    states = []

    def look(pipe, *_, **__):
        states.append(adapter(pipe))
        return next(scores)

    monkeypatch.setattr(train_lora, "LOOK", 1)
    monkeypatch.setattr(train_lora, "score", look)
    train(pipe, lesson("neon"), noise_pictures, judge, Recipe(steps=3, rate=1e-2, batch=2))
    assert torch.equal(adapter(pipe), states[1])
    assert not torch.equal(states[1], states[2])


def adapter(pipe) -> torch.Tensor:
    return torch.cat([value.flatten().clone() for key, value in pipe.unet.state_dict().items() if "lora_" in key])
