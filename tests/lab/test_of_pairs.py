"""LoRAs that are trained for a pair, and their rows in the table."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from lab import folder, table, train_lora, train_zip
from lab.drawn import Drawn
from lab.judge import Judge
from lab.rows import JOINT, OF_PAIRS, ZIPPED
from lab.train_joint import joint_lesson
from lab.train_lora import Recipe, save, train
from lab.words import ALL_STYLES, ALL_SUBJECTS, STYLES, SUBJECTS
from lib_nplora.pipelines import zip_training, zipping
from tests.lab.test_table import loras

__all__ = ["loras"]


@pytest.fixture
def judge() -> Judge:
    torch.manual_seed(0)
    return Judge(ALL_SUBJECTS, ALL_STYLES).eval()


def trained(work):
    (one,) = table.Wanted(layers="attention").trained(work, "same")
    return one


def test_a_joint_lesson_holds_both_sides_about_as_often():
    told = joint_lesson("fox", "neon")
    counts = Counter("fox" if subject == "fox" else style for subject, style in told.pairs)
    assert counts == {"fox": 3 * len(STYLES), "neon": len(SUBJECTS)}
    captions = dict(zip(told.pairs, told.captions))
    assert captions["fox", "noto"] == "a sks animal in noto style"
    assert captions["lion", "neon"] == "a lion animal in swz style"


def test_rows_of_pairs_are_drawn_once_their_files_are_there(pipe, loras, noise_pictures, judge, monkeypatch):
    monkeypatch.setattr(train_lora, "LOOK", 2)
    monkeypatch.setattr(train_lora, "LOOKS_AT", 2)
    monkeypatch.setattr(zipping, "DRAWN_STEPS", 2)
    drawn = Drawn(loras / "table.jsonl", [], 1)
    wanted = table.Wanted(layers="attention", rows=("direct", *(row.label for row in OF_PAIRS)), noises=1, steps=1)

    def methods() -> list[str]:
        one = trained(loras)
        table.draw_missing(pipe, [judge], noise_pictures, drawn, [one], wanted)
        return [entry.method for entry in drawn.entries([one])]

    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    assert methods() == ["direct"]
    one = trained(loras)
    zipped = train_zip.zip_one(pipe, one, zip_training.Recipe(lr=0.1, steps=3))
    assert min(map(zipped.moved, ("content", "style"))) > 0.05
    assert one.of_pair[ZIPPED].exists()
    assert methods() == ["direct", "ZipLoRA"]
    told = joint_lesson("fox", "neon")
    train(pipe, told, noise_pictures, judge, Recipe(steps=2, rate=1e-2, batch=2, layers="attention"))
    save(pipe, told.name, one.of_pair[JOINT])
    pipe.unload_lora_weights()
    assert methods() == ["direct", "joint training", "ZipLoRA"]
    after = pipe.unet.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    one.of_pair[JOINT].unlink()
    assert methods() == ["direct", "ZipLoRA"]


def test_pictures_by_one_file_are_those_of_the_file(pipe, loras):
    fox = folder.lora(loras, "fox", "attention", 0)
    found = table.by_one_file(pipe, fox, "fox", range(2), 1)
    plain = table.draw(pipe, [table.fused_caption("fox")] * 2, range(2), 1)
    with table.Pair(pipe, fox, folder.lora(loras, "neon", "attention", 0)).fuse(method="direct", s=0):
        expected = table.draw(pipe, [table.fused_caption("fox")] * 2, range(2), 1)
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=0)
    assert not torch.allclose(found, plain, atol=5e-2)
