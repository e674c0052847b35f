"""`zip` writes an ordinary LoRA, goes on if it was stopped, and refuses in one sentence what it cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lib_nplora.command_line import zip as command
from lib_nplora.command_line.main import main
from lib_nplora.pipelines import zip_training, zipping
from tests.pipelines import loras, tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with a pipeline, and LoRAs for it."""
    folder = tmp_path_factory.mktemp("models")
    pipe = tiny.made("SD 1.5")
    pipe.save_pretrained(folder / "sd")
    for seed, name in enumerate(("dog", "vangogh")):
        loras.write(folder / f"{name}.safetensors", pipe, seed=seed, only="unet.*attn", size=0.3)
    loras.write(folder / "convolutions.safetensors", pipe, seed=3, only="unet.*conv1")
    loras.write(folder / "flux.safetensors", tiny.made("Flux"), "kohya")
    (folder / "empty").mkdir()
    (folder / "pictures").mkdir()
    Image.new("RGB", (20, 30), "red").save(folder / "pictures" / "red.png")
    (folder / "pictures" / "notes.txt").write_text("red")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def run(models, tmp_path, monkeypatch, capsys):
    """Runs the command; returns (code, output, errors)."""
    monkeypatch.chdir(models)
    monkeypatch.setattr(zipping, "DRAWN_STEPS", 3)
    monkeypatch.setattr(zip_training, "SAVED_EVERY", 2)

    def run(*arguments: str, content: str = "dog", model: str = "sd", output: str = "") -> tuple[int, str, str]:
        told = ["--model", model, "--content-prompt", "a", "--style-prompt", "dog", "--drawn", "1"]
        out = output or str(tmp_path / "both.safetensors")
        code = main(
            ["zip", f"{content}.safetensors", "vangogh.safetensors", *told, "--steps", "8", "-o", out, *arguments]
        )
        return (code, *capsys.readouterr())

    run.out = tmp_path / "both.safetensors"
    return run


def test_it_says_what_came_of_it(run, tmp_path):
    code, out, err = run("--lr", "0.05", "--plot", str(tmp_path / "loss.png"), "--content-images", "pictures")
    assert (code, err) == (0, "")
    assert out.startswith("32 layers merged by columns in 8 steps; loss ")
    assert out.endswith(f" from 1 on average -> {run.out}\n")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["both.safetensors", "loss.png"]
    assert Image.open(tmp_path / "loss.png").size == (800, 450)


def test_the_published_rate_is_remarked_on(run):
    code, _, err = run("--lr", "published")
    assert code == 0
    assert err.startswith("nplora: warning: the mergers hardly moved, so this is nearly the plain merge: ")


def test_a_run_that_was_stopped_twice_goes_on(run, monkeypatch, tmp_path):
    assert run()[0] == 0
    whole = load_file(run.out)
    run.out.unlink()
    usual = command.Bar.stepped
    for step in (3, 7):

        def stopped(bar, done, loss, step=step):
            if done == step:
                raise KeyboardInterrupt
            usual(bar, done, loss)

        monkeypatch.setattr(command.Bar, "stepped", stopped)
        assert run()[0] == 130
        assert [file.name for file in tmp_path.iterdir()] == ["both.training"]
    monkeypatch.setattr(command.Bar, "stepped", usual)
    code, _, err = run("--lr", "0.02")
    assert code == 2
    assert "both.training' is what is left of a run that was stopped, with other files or settings" in err
    assert run()[0] == 0
    found = load_file(run.out)
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], values) for name, values in whole.items())
    assert [file.name for file in tmp_path.iterdir()] == ["both.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "changes", "said"),
    [
        ((), {"content": "dogg"}, "there is no file 'dogg.safetensors'. Did you mean 'dog.safetensors'?"),
        ((), {"content": "vangogh"}, "'vangogh.safetensors' would be content and style at once"),
        (
            (),
            {"content": "flux"},
            "'flux.safetensors' is made for another model, not for this StableDiffusionPipeline: ",
        ),
        (
            (),
            {"content": "convolutions"},
            "'convolutions.safetensors' and 'vangogh.safetensors' share no layer of atten",
        ),
        ((), {"model": "sdd"}, "there is no folder 'sdd'. Did you mean 'sd'?"),
        ((), {"output": "both.png"}, "the output 'both.png' does not end in .safetensors: choose such a name"),
        ((), {"output": "dog.safetensors"}, "the output 'dog.safetensors' is one of the files to read"),
        (("--plot", "away/loss.png"), {}, "the output folder 'away' does not exist: create it first"),
        (("--lr", "fast"), {}, "lr=fast is not a number"),
        (("--lr", "0"), {}, "lr=0 is not above 0 and at most 1: 0.01 is usual, 'published' is 5e-5"),
        (("--alike", "-1"), {}, "alike=-1 is negative: it is a number from 0 up"),
        (("--steps", "0"), {}, "steps=0 is not a whole number from 1 to"),
        (("--seed", "x"), {}, "seed=x is not a whole number"),
        (("--scope", "some"), {}, "argument --scope: invalid choice: 'some'"),
        (("--content-images", "away"), {}, "there is no picture or folder 'away'"),
        (("--style-images", "empty"), {}, "there are no pictures in 'empty': name a folder that holds .png or .jpg"),
        (("--style-images", "broken.png"), {}, "'broken.png' cannot be read as a picture: name a .png or .jpg file"),
    ],
)
def test_what_cannot_be_zipped_is_said_in_one_sentence(run, arguments, changes, said):
    code, out, err = run(*arguments, **changes)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"nplora: {said}")
    assert not run.out.exists()


def test_a_file_is_not_overwritten_unasked(run):
    run.out.write_bytes(b"old")
    assert "exists: choose another name, or add --overwrite" in run()[2]
    assert run.out.read_bytes() == b"old"
    assert run("--overwrite")[0] == 0
