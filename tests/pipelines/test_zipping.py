"""Pairs zipped in small pipelines: what is learnt from, what runs, what is saved, and that nothing is left."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from lib_nplora.errors import HostError, MismatchError
from lib_nplora.files import read_lora
from lib_nplora.files.hashing import sha256
from lib_nplora.hosts.diffusers import PipelineModel
from lib_nplora.jobs.pair import Saving
from lib_nplora.pipelines import fuse_into, recording, zipping
from lib_nplora.pipelines.beside import SIDES, Beside
from lib_nplora.pipelines.fusing import on_disk
from lib_nplora.pipelines.recording import Asked
from lib_nplora.pipelines.zip_file import zip_files
from lib_nplora.pipelines.zip_layers import mergers_of, parts_of
from lib_nplora.pipelines.zip_training import Recipe
from lib_nplora.pipelines.zipping import Lessons, zip_loras
from tests.pipelines import loras, tiny

LESSONS = Lessons(["a"], ["dog"], drawn=1, size=16)
ONLY = "attn|conv1|fc1"


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(zipping, "DRAWN_STEPS", 3)
    usual = recording.ask
    short = {"max_sequence_length": 12}
    monkeypatch.setattr(recording, "ask", lambda pipe, asked, number, given: usual(pipe, asked, number, short | given))


@pytest.fixture
def pair(tmp_path):
    """Makes a pipeline, and the files of a pair for it."""

    def make(model: str, only: str = ONLY, spelling: str = "peft"):
        pipe = tiny.made(model)
        paths = [tmp_path / f"{name}.safetensors" for name in ("dog", "vangogh")]
        for seed, path in enumerate(paths):
            loras.write(path, pipe, spelling, seed=seed, rank=3 - seed, only=only, size=0.3)
        return pipe, paths

    return make


def loaded(pipe, paths):
    model = PipelineModel(pipe)
    return model, *(model.load(on_disk(path)) for path in paths)


@pytest.mark.parametrize(
    ("model", "spelling"), [("SD 1.5", "peft"), ("SDXL", "peft"), ("SD 3", "peft"), ("Flux", "kohya")]
)
def test_what_learns_is_what_is_merged(model, spelling, pair):
    """Beside the layers as in them: both sides with any mergers, and each side alone."""
    pipe, paths = pair(model, "(unet|transformer).*(attn|conv1)", spelling)
    held, *sides = loaded(pipe, paths)
    mergers = mergers_of(held, *sides, "attention")
    assert len(mergers) >= 4
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for merger in mergers.values():
            for side in SIDES:
                merger.of(side).uniform_(-1, 2, generator=generator)
    beside = Beside(parts_of(held, dict(zip(SIDES, sides)), mergers))
    scaled = [zipping.scaled(lora, side, mergers) for side, lora in zip(SIDES, sides)]
    with beside.running():
        together = tiny.picture(pipe)
        alone = []
        for side in SIDES:
            with beside.alone(side):
                alone.append(tiny.picture(pipe))
    held.apply([zipping.merged(*scaled)])
    torch.testing.assert_close(together, tiny.picture(pipe), atol=1e-4, rtol=1e-3)
    held.clear()
    for weights, path, picture in zip(((1, 0), (0, 1)), paths, alone):
        if spelling == "peft":
            other = tiny.made(model)
            other.load_lora_weights(path)
            torch.testing.assert_close(picture, tiny.picture(other), atol=1e-4, rtol=1e-3)
        with fuse_into(pipe, *paths, method="direct", c=weights[0], s=weights[1]):
            torch.testing.assert_close(picture, tiny.picture(pipe), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)


@pytest.mark.parametrize("model", ["SD 1.5", "Flux"])
def test_a_saved_file_gives_the_picture_and_nothing_is_left(model, pair, tmp_path):
    pipe, paths = pair(model)
    before = loras.weights(pipe)
    drawn, losses = [], []
    saving = Saving(tmp_path / "both.safetensors", "fp32")
    zipped, remarks = zip_files(
        pipe,
        *paths,
        saving,
        LESSONS,
        Recipe(lr=0.05, steps=24, alike=0),
        "attention",
        lambda *told: drawn.append(told),
        lambda *told: losses.append(told),
    )
    now = loras.weights(pipe)
    denoiser = recording.denoiser_of(pipe)
    assert all(torch.equal(now[name], value) for name, value in before.items())
    assert not any(layer._forward_hooks for layer in loras.layers(pipe).values())
    assert not denoiser._forward_pre_hooks
    assert all(parameter.requires_grad for parameter in denoiser.parameters())
    assert not denoiser.is_gradient_checkpointing
    assert remarks == []
    assert {told[0] for told in drawn} == set(SIDES)
    assert [done for done, _ in losses] == list(range(1, 25))
    first, last = ([one.content + one.style for one in zipped.losses[part]] for part in (slice(3), slice(-3, None)))
    assert sum(last) < 0.95 * sum(first)
    assert min(map(zipped.moved, SIDES)) > 0.05
    held = PipelineModel(pipe)
    held.apply([zipped.fused])
    expected = tiny.picture(pipe)
    held.clear()
    other = tiny.made(model)
    other.load_lora_weights(saving.output)
    torch.testing.assert_close(tiny.picture(other), expected, atol=1e-4, rtol=1e-3)
    assert not (tmp_path / "both.training").exists()


def test_columns_are_scaled_in_attention_and_the_rest_is_added(pair, tmp_path):
    pipe, paths = pair("SD 1.5")
    output = tmp_path / "both.safetensors"
    recipe = Recipe(lr=0.05, steps=2, seed=4)
    zipped, _ = zip_files(
        pipe, *paths, Saving(output, "fp32"), LESSONS, recipe, "attention", lambda *_: None, lambda *_: None
    )
    content, style, both = (read_lora(path) for path in (*paths, output))
    names = {str(key.name): merger for key, merger in zipped.mergers.items()}
    assert all("attn" in name and "lora_unet" in name for name in names)
    assert len(both.weights.deltas) > len(names) > 10
    for key, delta in both.weights.deltas.items():
        merger = names.get(str(key.name))
        m_c, m_s = (merger.of(side).detach() if merger else 1 for side in SIDES)
        expected = content.weights.deltas[key].dense() * m_c + style.weights.deltas[key].dense() * m_s
        torch.testing.assert_close(delta.dense(), expected, atol=1e-5, rtol=1e-4)
        assert delta.rank == 3 + 2
    with safe_open(output, framework="pt") as file:
        told = file.metadata()
    assert told["nplora_method"] == "zip"
    assert json.loads(told["nplora_contents"]) == [{"name": "dog", "sha256": sha256(paths[0]), "te": 1.0, "unet": 1.0}]
    assert (told["nplora_lr"], told["nplora_steps"], told["nplora_seed"]) == ("0.05", "2", "4")
    assert json.loads(told["nplora_prompts"]) == {"content": ["a"], "style": ["dog"]}


def test_all_layers_of_the_model_can_have_mergers(pair):
    pipe, paths = pair("SD 1.5")
    held, *sides = loaded(pipe, paths)
    found = mergers_of(held, *sides, "all")
    assert {key.part for key in found} == {"unet"}
    assert any("conv1" in str(key.name) for key in found)
    assert len(found) > len(mergers_of(held, *sides, "attention"))


def test_layers_that_both_hold_have_mergers(pair, tmp_path):
    pipe, paths = pair("SD 1.5", "attn1")
    loras.write(paths[1], pipe, seed=1, only="attn2")
    held, *sides = loaded(pipe, paths)
    with pytest.raises(MismatchError, match=r"'dog\.safetensors' and 'vangogh\.safetensors' share no layer of at"):
        zip_loras(pipe, held, *sides, LESSONS, Recipe())


def test_pictures_are_learnt_from_with_noise_of_every_level(pair):
    pipe, _ = pair("SD 1.5")
    black, white = (Image.new("L", (40, 20), colour) for colour in (0, 255))
    asked = Asked(["a", "dog"], 12, seed=5)
    dark, bright, again = (
        recording.from_pictures(pipe, asked, [picture], lambda *_: None) for picture in (black, white, black)
    )
    levels = [int(call.args[1]) for call in dark]
    assert len(set(levels)) > 8
    assert min(levels) < 300 < 700 < max(levels)
    shares = pipe.scheduler.alphas_cumprod
    apart = (dark[0].args[0] - bright[0].args[0]).norm() / shares[levels[0]] ** 0.5
    for one, other, same, level in zip(dark, bright, again, levels):
        assert one.args[0].shape == (1, 4, 8, 8)
        assert torch.equal(one.args[0], same.args[0])
        assert float((one.args[0] - other.args[0]).norm()) == pytest.approx(
            float(apart * shares[level] ** 0.5), rel=0.2
        )
    assert not torch.equal(dark[0].kwargs["encoder_hidden_states"], dark[1].kwargs["encoder_hidden_states"])
    assert not recording.denoiser_of(pipe)._forward_pre_hooks


def test_a_pair_is_zipped_by_pictures(pair):
    pipe, paths = pair("SD 1.5")
    held, *sides = loaded(pipe, paths)
    pictures = [Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (0, 90)]
    lessons = Lessons(["a"], ["dog"], pictures, pictures[:1], size=16)
    zipped = zip_loras(pipe, held, *sides, lessons, Recipe(lr=0.05, steps=3))
    assert min(map(zipped.moved, SIDES)) > 0.02


def test_what_cannot_learn_from_pictures_says_so(pair):
    pipe, _ = pair("SD 1.5")

    class Mine(type(pipe)):
        """A class that diffusers does not have."""

    mine = Mine(**pipe.components, requires_safety_checker=False)
    with pytest.raises(HostError, match="no image-to-image for Mine, so it learns from no pictures: leave them out"):
        recording.from_pictures(mine, Asked(["a dog"], 1), [Image.new("L", (8, 8))], lambda *_: None)
