"""The table draws what is missing and nothing else, with real files of LoRAs."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch
from peft import LoraConfig
from PIL import Image

from lab import demo, shipped, table
from lab.controls import controls
from lab.judge import Judge
from lab.rows import SHOWN, Row
from lab.train_lora import LAYERS, save
from lab.words import ALL_STYLES, ALL_SUBJECTS


@pytest.fixture
def loras(pipe, tmp_path):
    """Two small LoRAs of random numbers in the working folder, and the base."""
    pipe.save_pretrained(tmp_path / "base" / "pipeline")
    for seed, name in enumerate(("fox", "neon")):
        torch.manual_seed(seed)
        config = LoraConfig(r=2, lora_alpha=2, target_modules=LAYERS["attention"], init_lora_weights=False)
        pipe.unet.add_adapter(config, name)
        (tmp_path / "loras").mkdir(exist_ok=True)
        save(pipe, name, tmp_path / "loras" / f"{name}-attention-0.safetensors")
        pipe.unload_lora_weights()
    return tmp_path


@pytest.fixture
def args(loras) -> Namespace:
    return Namespace(base=None, regime="same", layers="attention", subjects=["fox", "panda"], styles=["neon"], steps=1)


def test_only_what_is_missing_is_drawn(loras, args, noise_pictures, monkeypatch):
    drawn = []

    def fused(pipe, pair, subject, row, noises, steps):
        drawn.append(row.label)
        return torch.zeros(len(noises), 3, 48, 48)

    monkeypatch.setattr(table, "fused", fused)
    panel = [Judge(ALL_SUBJECTS, ALL_STYLES).eval()]
    first = table.draw_missing(loras, noise_pictures, panel, args)
    assert drawn == [row.label for row in table.ROWS]
    assert {entry.pair for entry in first} == {("fox", "neon", 0, 0)}
    assert table.draw_missing(loras, noise_pictures, panel, args) == first
    assert len(drawn) == len(table.ROWS)


def test_every_shown_way_to_fuse_gives_another_picture_and_leaves_the_base_alone(pipe, loras):
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    files = [loras / "loras" / f"{name}-attention-0.safetensors" for name in ("fox", "neon")]
    with controls():
        pair = demo.Pair(pipe, *files)
        pictures = [demo.fused(pipe, pair, "fox", row, range(1), 2) for row in SHOWN]
    for index, one in enumerate(pictures):
        for other in pictures[:index]:
            assert not torch.equal(one, other)
    after = pipe.unet.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_a_label_is_said_once():
    labels = [row.label for row in table.ROWS]
    assert len(set(labels)) == len(labels)
    assert table.weighted(1.0, 0.6) == Row("weights 1, 0.6", {"method": "direct", "c": 1.0, "s": 0.6})


def test_the_demo_is_a_labelled_grid(pipe, loras, monkeypatch):
    monkeypatch.setattr(demo, "SHOWN_PAIRS", (("fox", "neon"),))
    monkeypatch.setattr(shipped, "lora", lambda name: loras / "loras" / f"{name}-attention-0.safetensors")
    monkeypatch.setattr(shipped, "truth", lambda *pair: Image.new("RGB", (48, 48), "red"))
    with controls():
        sheet = demo.demo(pipe, seed=0, steps=1)
    assert sheet.getpixel((sheet.width - 20, sheet.height - 20)) == (255, 0, 0)
    assert sheet.width > 144 * (3 + len(SHOWN))
