"""The table draws what is missing and nothing else, with real files of LoRAs."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig
from PIL import Image

from lab import demo, folder, shipped, table
from lab.controls import controls
from lab.drawn import Drawn
from lab.judge import Judge
from lab.rows import BALANCED, MEASURED, OBSERVING, SHORT, SHOWN, TUNED, Row, weighted
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
def drawn(loras) -> Drawn:
    return Drawn(loras / "table.jsonl", sorted(folder.base(loras).rglob("*.safetensors")), 1)


@pytest.fixture
def run(pipe, loras, drawn, noise_pictures, monkeypatch):
    """Draws what is missing. Returns (label, noises) of what was asked for."""
    asked: list[tuple[str, list[int]]] = []

    def fused(pipe, pair, subject, row, noises, steps):
        asked.append((row.label, list(noises)))
        return torch.zeros(len(noises), 3, 48, 48)

    monkeypatch.setattr(table, "fused", fused)
    panel = [Judge(ALL_SUBJECTS, ALL_STYLES).eval()]

    def draw(regime: str = "same", **wanted) -> list[tuple[str, list[int]]]:
        asked.clear()
        one = table.Wanted(layers="attention", steps=1, **wanted)
        table.draw_missing(pipe, panel, noise_pictures, drawn, list(one.trained(loras, regime)), one)
        return list(asked)

    return draw


def pairs(loras, **wanted):
    return list(table.Wanted(layers="attention", **wanted).trained(loras, "same"))


def test_only_what_is_missing_is_drawn(run, drawn, loras):
    rows = ("direct", "NP *")
    first = run(rows=rows, noises=2)
    assert first == [(label, [20000, 20001]) for label in ("direct", "NP 0.25", "NP 0.5", "NP 2", "NP hard")]
    assert run(rows=rows, noises=2) == []
    assert run(rows=rows, noises=3) == [(label, [20002]) for label, _ in first]
    assert run(rows=("direct", "K-LoRA"), noises=3) == [("K-LoRA", [20000, 20001, 20002])]
    entries = drawn.entries(pairs(loras))
    assert [entry.method for entry in entries] == [*(label for label, _ in first), "K-LoRA"]
    assert {entry.pair for entry in entries} == {("fox", "neon", 0, 0)}
    assert all(sorted(entry.noises) == [20000, 20001, 20002] for entry in entries)


def test_what_was_cut_off_is_drawn_again(run, drawn, loras):
    run(rows=("direct", "K-LoRA"), noises=1)
    path = loras / "table.jsonl"
    path.write_text(path.read_text()[:-20])
    assert run(rows=("direct", "K-LoRA"), noises=1) == [("K-LoRA", [20000])]
    assert len(drawn.entries(pairs(loras))) == 2
    assert run(rows=("direct", "K-LoRA"), noises=1) == []


def test_what_was_drawn_with_another_file_does_not_count(run, drawn, loras):
    run(rows=("direct",), noises=1)
    assert drawn.entries(pairs(loras))
    (loras / "loras" / "fox-attention-0.safetensors").write_bytes(b"trained anew")
    assert drawn.entries(pairs(loras)) == []


def test_pairs_are_chosen_by_pattern_and_by_part(loras):
    assert [pair.names for pair in pairs(loras, pairs=("fox/*",))] == [("fox", "neon", 0, 0)]
    assert pairs(loras, pairs=("*/duotone", "rose/neon")) == []
    assert sum(len(pairs(loras, part=(part, 3))) for part in (1, 2, 3)) == 1


def test_both_regimes_use_the_same_files():
    same, different = (set(table.REGIMES[regime]) for regime in ("same", "different"))
    assert all(content == style for content, style in same)
    assert all(content != style for content, style in different)
    assert {seed for pair in same for seed in pair} == {seed for pair in different for seed in pair}


def test_every_way_to_fuse_gives_another_picture_and_leaves_the_base_alone(pipe, loras):
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    files = [loras / "loras" / f"{name}-attention-0.safetensors" for name in ("fox", "neon")]
    rows = [row for row in (*SHOWN, *BALANCED, *OBSERVING) if row.label != "tau 0.5" and row is not SHOWN[-1]]
    with controls():
        pair = demo.Pair(pipe, *files, table.looks("fox"))
        pictures = [demo.fused(pipe, pair, "fox", row, range(1), 1) for row in rows]
    for index, one in enumerate(pictures):
        for other in pictures[:index]:
            assert not torch.equal(one, other)
    after = pipe.unet.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_a_label_is_said_once():
    labels = [row.label for row in MEASURED]
    assert len(set(labels)) == len(labels)
    assert weighted(1.0, 0.6) == Row("weights 1, 0.6", {"method": "direct", "c": 1.0, "s": 0.6})
    assert set(SHORT) - {TUNED} <= set(labels)


def test_the_demo_is_a_labelled_grid(pipe, loras, monkeypatch):
    monkeypatch.setattr(demo, "SHOWN_PAIRS", (("fox", "neon"),))
    monkeypatch.setattr(shipped, "lora", lambda name: loras / "loras" / f"{name}-attention-0.safetensors")
    monkeypatch.setattr(shipped, "truth", lambda *pair: Image.new("RGB", (48, 48), "red"))
    with controls():
        sheet = demo.demo(pipe, seed=0, steps=1)
    assert sheet.getpixel((sheet.width - 20, sheet.height - 20)) == (255, 0, 0)
    assert sheet.width > 144 * (3 + len(SHOWN))
