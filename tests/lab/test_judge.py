"""The judge: what it says adds up, it comes back from its file, and it can learn."""

from __future__ import annotations

import pytest
import torch

from lab.data import Pictures
from lab.judge import Judge, Verdict, augment, load, save, train


def test_it_learns_to_name_what_it_sees(noise_pictures, capsys, monkeypatch):
    monkeypatch.setattr("lab.judge.BATCH", 16)
    few = Pictures(("fox", "lion"), ("neon", "noto"), noise_pictures.pixels[:2, :2])
    judge = train(few, steps=60, seed=1)
    assert "names 100.0% of subjects" in capsys.readouterr().out
    verdict = judge.verdict(few.tensor([("fox", "neon")]), "fox", "neon")
    assert verdict.names_both.all()
    wrong = judge.verdict(few.tensor([("lion", "neon")]), "fox", "neon")
    assert not wrong.names_subject.any()
    assert wrong.harmonic.item() < verdict.harmonic.item()


def test_it_comes_back_from_its_file(tmp_path):
    torch.manual_seed(0)
    judge = Judge(["fox", "lion"], ["neon"]).eval()
    save(judge, tmp_path / "judge.safetensors")
    again = load(tmp_path / "judge.safetensors")
    assert (again.subjects, again.styles) == (("fox", "lion"), ("neon",))
    images = torch.randn(2, 3, 48, 48)
    for one, other in zip(judge(images), again(images)):
        assert torch.allclose(one, other, atol=5e-3)


def test_cosines_are_cosines():
    images = torch.randn(3, 3, 48, 48)
    for answer in Judge(["fox", "lion"], ["neon"]).eval()(images):
        assert answer.abs().max() <= 1 + 1e-6


@pytest.mark.parametrize(("subject", "style", "expected"), [(0.5, 0.5, 0.5), (0.2, 0.8, 0.32), (-0.3, 0.9, 0.0)])
def test_the_harmonic_mean_is_low_where_one_side_is(subject, style, expected):
    yes = torch.tensor([True])
    verdict = Verdict(torch.tensor([subject]), torch.tensor([style]), yes, yes)
    assert verdict.harmonic.item() == pytest.approx(expected, abs=1e-5)


def test_augmenting_moves_pictures_and_keeps_their_size():
    torch.manual_seed(0)
    images = torch.zeros(8, 3, 48, 48)
    images[:, :, 20:28, 20:28] = 1
    moved = augment(images)
    assert moved.shape == images.shape
    assert not torch.allclose(moved[0], moved[1], atol=0.2)
