"""`generate` draws one sheet, and refuses in one sentence what it cannot draw."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from lib_nplora.command_line.generate import caption
from lib_nplora.command_line.main import main
from lib_nplora.command_line.options import parser, requests_of
from lib_nplora.pipelines import fuse_into
from lib_nplora.pipelines.drawing import GAP, LEAST, LINE, Cell, sheet
from tests.pipelines import loras, tiny


class Mini(StableDiffusionPipeline):
    """A class that diffusers does not have."""


class Silent(StableDiffusionPipeline):
    """Tells no steps."""

    def __call__(self, prompt, generator, num_inference_steps):
        return super().__call__(prompt, generator=generator, num_inference_steps=num_inference_steps)


class Mute(StableDiffusionPipeline):
    """Makes no pictures."""

    def __call__(self, prompt, generator, num_inference_steps):
        return object()


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with a pipeline, and LoRAs for it."""
    folder = tmp_path_factory.mktemp("models")
    pipe = tiny.made("SD 1.5")
    pipe.save_pretrained(folder / "sd")
    for kind in (Mini, Silent, Mute):
        kind(**pipe.components, requires_safety_checker=False).save_pretrained(folder / kind.__name__)
    for seed, name in enumerate(("dog", "vangogh")):
        loras.write(folder / f"{name}.safetensors", pipe, seed=seed)
    loras.write(folder / "flux.safetensors", tiny.made("Flux"), "kohya")
    return folder


@pytest.fixture
def generate(models, tmp_path, monkeypatch, capsys):
    """Runs the command; returns (code, output, errors)."""
    monkeypatch.chdir(models)
    out = tmp_path / "grid.png"

    def run(*arguments: str, model: str = "sd", content: str = "dog", output: Path = out) -> tuple[int, str, str]:
        files = ["--content", f"{content}.safetensors", "--style", "vangogh.safetensors"]
        told = ["--model", model, *files, "--prompt", "a dog", "--steps", "3", "-o", str(output), *arguments]
        code = main(["generate", *told])
        return (code, *capsys.readouterr())

    run.out = out
    return run


def test_a_sheet_has_a_row_for_each_method_and_a_picture_for_each_mu(generate, models):
    code, out, err = generate("--mu", "0,0.5,mid@2,hard", "--method", "np,klora,direct", "--seed", "7")
    assert (code, out) == (0, f"{generate.out}\n")
    assert "nplora" not in err
    image = Image.open(generate.out)
    side = LEAST
    assert image.size == (3 * side + 4 * GAP, 3 * (side + LINE + GAP) + GAP)
    pixels = np.asarray(image)

    def cell(row: int, column: int) -> np.ndarray:
        top, left = GAP + row * (side + LINE + GAP) + LINE, GAP + column * (side + GAP)
        return pixels[top : top + side, left : left + side]

    assert (cell(1, 1) == 255).all()
    pipe = StableDiffusionPipeline.from_pretrained(models / "sd")
    pair = [models / "dog.safetensors", models / "vangogh.safetensors"]
    asked = [(0, 0, "0", "np"), (0, 1, "0.5,mid@2", "np"), (0, 2, "hard", "np"), (1, 0, None, "klora")]
    shown = {}
    for row, column, mu, method in asked:
        with fuse_into(pipe, *pair, mu, method):
            made = pipe("a dog", num_inference_steps=3, generator=torch.Generator().manual_seed(7)).images[0]
        shown[row, column] = np.asarray(made.resize((side, side), 0))
        np.testing.assert_array_equal(cell(row, column), shown[row, column])
    np.testing.assert_array_equal(cell(2, 0), cell(0, 0))
    assert len({picture.tobytes() for picture in shown.values()}) == len(asked)


def asked(*arguments: str) -> list[list[str]]:
    given = ["--model", "m", "--content", "c", "--style", "s", "--prompt", "p", "-o", "o.png", *arguments]
    return [[caption(request) for request in row] for row in requests_of(parser().parse_args(["generate", *given]))]


def test_lists_of_methods_and_of_mu():
    assert asked() == [["np mu=0.5"]]
    assert asked("--mu", "mid@2,1,in@0,out1@hard,hard") == [["np mu=0.5,mid@2", "np mu=1,in@0,out1@hard", "np mu=hard"]]
    assert asked("--method", "klora,reverse", "--mu", "1,2") == [["klora"], ["reverse mu=1", "reverse mu=2"]]
    assert asked("--method", "direct", "--mu", "1,2") == [["direct"]]


def test_each_method_is_given_what_it_reads_and_what_none_reads_is_remarked(generate):
    given = ["generate", "--model", "m", "--content", "c", "--style", "s", "--prompt", "p", "-o", "o.png"]
    more = ["--method", "np,dare", "--density", "0.3", "--method-seed", "5", "--seed", "6", "--k", "2"]
    arguments = parser().parse_args([*given, *more])
    (np_lora,), (dare,) = requests_of(arguments)
    assert [dict(request.given).keys() for request in (np_lora, dare)] == [{"k"}, {"density", "seed"}]
    assert (dict(dare.given)["seed"], arguments.seed) == (5, 6)
    code, _, err = generate("--density", "0.3", "--content-weight", "0")
    assert code == 0
    assert "nplora: warning: density= has no effect with method=np\n" in err


def test_a_class_that_diffusers_does_not_have_can_be_named(generate):
    code, _, err = generate(model="Mini")
    assert code == 2
    assert err.endswith(
        "nplora: 'Mini' holds a Mini, which diffusers does not have: name its class with --pipeline MODULE.CLASS\n"
    )
    assert generate("--pipeline", f"{__name__}.Mini", model="Mini")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "changes", "said"),
    [
        ((), {"model": "sdd"}, "there is no folder 'sdd'. Did you mean 'sd'?"),
        ((), {"model": "dog.safetensors"}, "'dog.safetensors' is a file: name a folder that holds a model_index.json"),
        ((), {"model": "sd/unet"}, "'sd/unet' holds no pipeline of diffusers: there is no model_index.json in it"),
        ((), {"content": "dogg"}, "there is no file 'dogg.safetensors'. Did you mean 'dog.safetensors'?"),
        (
            (),
            {"content": "flux"},
            "'flux.safetensors' is made for another model, not for this StableDiffusionPipeline: ",
        ),
        ((), {"content": "vangogh"}, "'vangogh.safetensors' would be content and style at once"),
        ((), {"output": Path("grid.jpg")}, "the output 'grid.jpg' does not end in .png: choose such a name"),
        ((), {"output": Path("away/grid.png")}, "the output folder 'away' does not exist: create it first"),
        (("--seed", "seven"), {}, "seed=seven is not a whole number from 0 to 4294967295"),
        (("--steps", "0"), {}, "steps=0 is not a whole number from 1 to 10000"),
        (("--mu", "0.5,deep"), {}, "mu=deep is not a number: mu is a number from 0 up, or 'hard'"),
        (("--mu", "0.5,in11@1"), {}, "this model has no block in11: it has te1"),
        (("--method", "np,klorra"), {}, "there is no method 'klorra'. Did you mean 'klora'?"),
        (("--pipeline", "tests.Away"), {}, "there is no pipeline tests.Away ("),
        (("--pipeline", "Mini"), {}, "there is no pipeline Mini ("),
        (
            ("--pipeline", f"{__name__}.Silent", "--method", "np,klora"),
            {"model": "Silent"},
            "method=klora changes from",
        ),
        (("--pipeline", f"{__name__}.Mute"), {"model": "Mute"}, "Mute makes no pictures"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_sentence(generate, arguments, changes, said):
    code, out, err = generate(*arguments, **changes)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"nplora: {said}")
    assert not generate.out.exists()


def test_damaged_files_are_named(generate, models, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    index = json.loads((models / "sd" / "model_index.json").read_text())
    (broken / "model_index.json").write_text("{")
    assert f"'{broken}/model_index.json' cannot be read (JSONDecodeError" in generate(model=str(broken))[2]
    (broken / "model_index.json").write_text(json.dumps(index))
    code, _, err = generate(model=str(broken))
    assert code == 2
    assert err.splitlines()[-1].startswith(f"nplora: '{broken}' cannot be opened: ")
    (tmp_path / "half.safetensors").write_bytes((models / "dog.safetensors").read_bytes()[:9000])
    code, _, err = generate(content=str(tmp_path / "half"))
    assert code == 2
    assert "'half.safetensors' cannot be opened as a .safetensors file" in err


def test_without_diffusers_it_says_how_to_install_it(generate, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    code, _, err = generate()
    assert code == 2
    assert err.startswith("nplora: diffusers cannot be used here (")
    assert "pip install '.[diffusers]'" in err


def test_a_sheet_is_not_overwritten_unasked(generate):
    generate.out.write_bytes(b"old")
    code, _, err = generate()
    assert (code, generate.out.read_bytes()) == (2, b"old")
    assert "exists: choose another name, or add --overwrite" in err
    assert generate("--overwrite")[0] == 0
    assert Image.open(generate.out).format == "PNG"


def test_large_pictures_keep_their_size_and_long_captions_are_cut():
    large, small = Image.new("RGB", (300, 200), "red"), Image.new("L", (100, 50), 128)
    made = sheet([[Cell("x" * 500, large), Cell("small", small)], [Cell("", small)]])
    assert made.size == (300 + 200 + 3 * GAP, 200 + 100 + 2 * (LINE + GAP) + GAP)
    pixels = np.asarray(made)
    assert (pixels[: GAP + LINE, GAP + 300 :][:, :GAP] == 255).all()
    assert (pixels[GAP + LINE :, GAP : GAP + 300][:200] == (255, 0, 0)).all()
    assert (pixels[: GAP + LINE, GAP : GAP + 300] < 128).any()
