"""The whole protocol on tiny random SDXL, CLIP and DINO: trained, drawn, scored, told."""

from __future__ import annotations

import json
import re

import pytest
import torch
from peft.tuners.lora import LoraLayer
from PIL import Image

from lab.table1 import dreambooth
from lab.table1.__main__ import main
from lab.table1.eyes import ClipAndDino, reading
from lab.table1.sides import read_side
from lib_nplora.files import read_lora
from tests.lab.table1.models import save_models, save_side
from tests.pipelines import tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return folder


@pytest.fixture
def pairs(tmp_path):
    for name in ("dog", "cat"):
        save_side(tmp_path / "pairs" / "content" / name, f"a {name}")
    for name in ("ink", "oil"):
        save_side(tmp_path / "pairs" / "style" / name, "{a photo} a", count=1)
    return tmp_path / "pairs"


@pytest.fixture
def table1(models, pairs, tmp_path, capsys):
    """Runs the command. Returns (code, errors)."""

    def run(*more: str, model: str = "sdxl", clip: str = "clip", dino: str = "dino") -> tuple[int, str]:
        folders = {"model": models / model, "pairs": pairs, "out": tmp_path / "out"}
        given = [word for name, folder in folders.items() for word in (f"--{name}", str(folder))]
        scorers = ["--clip", str(models / clip), "--dino", str(models / dino)]
        small = ["--train-steps", "2", "--steps", "2", "--noises", "1", "--rate", "0.01"]
        code = main([*given, *scorers, *small, *more])
        return code, capsys.readouterr().err

    return run


def test_the_whole_protocol(table1, tmp_path):
    only = ("--only", "dog/ink", "cat/oil", "--rows", "direct", "NP hard", "weights 0.6, *")
    assert table1(*only)[0] == 0
    out = tmp_path / "out"
    made = {path.name for path in (out / "loras").iterdir()}
    contents, styles = (
        {f"{role}-{name}-{seed}.safetensors" for name in names for seed in seeds}
        for role, names, seeds in (("content", ("dog", "cat"), (0,)), ("style", ("ink", "oil"), (0, 1)))
    )
    assert made == contents | styles
    assert len(list((out / "pictures").rglob("*.png"))) == 2 * 2 * 6
    told = json.loads((out / "table1.json").read_text())
    assert [(one["regime"], one["scorer"], one["pairs"]) for one in told["tables"]] == [
        (regime, "clip and dino", 2) for regime in ("different", "same")
    ]
    for table in told["tables"]:
        rows = {row["method"]: row for row in table["rows"]}
        assert {"direct", "NP hard", "tuned weights"} <= rows.keys()
        four = [rows["direct"][f"{side} {eye}"] for side in ("content", "style") for eye in ("CLIP", "DINO")]
        assert all(-1 <= one["mean"] <= 1 and one["error"] is not None for one in four)
        means = [one["mean"] for one in four]
        assert rows["direct"]["S_arith"]["mean"] == pytest.approx(sum(means) / 4)
        assert rows["direct"]["S_harm of means"] == pytest.approx(4 / sum(1 / max(mean, 1e-6) for mean in means))
        assert "against direct" not in rows["direct"]
    markdown, latex = ((out / f"table1.{ending}").read_text() for ending in ("md", "tex"))
    assert "| content CLIP | style CLIP | content DINO | style DINO | S_arith | S_harm |" in markdown
    assert latex.count(r"\begin{table}") == 2
    assert not re.search(r"±|\*\*|(?<!\\)_(?!\{)", latex)
    bodies = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in bodies} == {10}


def test_what_is_trained_is_read_and_leaves_the_pipeline_alone(pairs, tmp_path):
    pipe, side = tiny.made("SDXL"), read_side("content", pairs / "content" / "dog")
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    losses = []
    recipe = dreambooth.Recipe(3, 0.01, 16)
    dreambooth.train(pipe, side, recipe, tmp_path / "one.safetensors", lambda done, loss: losses.append((done, loss)))
    dreambooth.train(pipe, side, recipe, tmp_path / "again.safetensors")
    dreambooth.train(pipe, side, dreambooth.Recipe(3, 0.01, 16, seed=1), tmp_path / "other.safetensors")
    assert [done for done, _ in losses] == [1, 2, 3]
    after = pipe.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert not any(isinstance(module, LoraLayer) for module in pipe.unet.modules())
    one, again, other = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("one", "again", "other"))
    assert one == again != other
    found = read_lora(tmp_path / "one.safetensors").weights
    assert not found.unmatched
    attention = [name for name, _ in pipe.unet.named_modules() if re.search(r"to_(q|k|v|out\.0)$", name)]
    assert len(found.deltas) == len(attention)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".", "tmp"))]


def test_a_picture_is_like_itself(models):
    scorer = ClipAndDino(models / "clip", models / "dinov2", "cpu")
    red, blue = (Image.new("RGB", (40, 30), colour) for colour in ("red", "blue"))
    found = reading(scorer, [red], [red], [blue])
    assert found.content == pytest.approx((1, 1), abs=1e-5)
    assert max(found.style) < 1 - 1e-4
    both = reading(scorer, [red], [red, blue], [red])
    assert both.content == pytest.approx([(1 + one) / 2 for one in found.style], abs=1e-5)


def test_two_scorers_make_two_tables_of_a_regime(table1, models, tmp_path):
    more = ("--only", "dog/*", "--rows", "direct", "--regimes", "same")
    again = ("--clip", *[str(models / "clip")] * 2, "--dino", str(models / "dino"), str(models / "dinov2"))
    assert table1(*more, *again)[0] == 0
    told = json.loads((tmp_path / "out" / "table1.json").read_text())
    assert [one["scorer"] for one in told["tables"]] == ["clip and dino", "clip and dinov2"]
    one, other = (table["rows"][0]["content DINO"]["mean"] for table in told["tables"])
    assert one != other


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"model": "gone"}, "there is no folder"),
        ({"model": "sd"}, "holds a StableDiffusionPipeline, not a StableDiffusionXLPipeline"),
        ({"clip": "dino"}, "holds a model of kind vit, no CLIP"),
        ({"dino": "gone"}, "there is no folder"),
        ({"dino": "sdxl"}, "holds no model of transformers"),
    ],
)
def test_a_wrong_folder_is_told_in_one_sentence(table1, given, expected):
    code, err = table1(**given)
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (
            lambda pairs: [path.unlink() for path in (pairs / "content" / "dog").glob("*.png")],
            "there are no pictures in",
        ),
        (lambda pairs: (pairs / "content").rename(pairs / "subjects"), "it is to hold a folder for each subject"),
        (lambda pairs: (pairs / "style" / "ink" / "prompt.txt").unlink(), "there is no prompt.txt in"),
        (lambda pairs: (pairs / "style" / "ink" / "prompt.txt").write_text("ink"), "put it in braces"),
        (lambda pairs: (pairs / "content" / "cat" / "prompt.txt").write_text("a\nb\nc"), "has 3 lines for 2 pictures"),
        (lambda pairs: (pairs / "content" / "cat" / "0.png").write_text("no"), "cannot be read as a picture"),
        (lambda pairs: (pairs / "content" / "cat" / "0.safetensors").write_text("no"), "0.safetensors"),
    ],
)
def test_a_wrong_folder_of_pairs_is_told_in_one_sentence(table1, pairs, broken, expected):
    broken(pairs)
    code, err = table1("--regimes", "same", "--rows", "direct", "--only", "cat/ink")
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--rows", "NP-LoRA"), "no row is called NP-LoRA; there are direct, NP 0.25"),
        (("--only", "cow/ink"), "no pair in"),
        (("--count", "0"), "ask for 1 or more"),
        (("--dino", "a", "b"), "1 --clip and 2 --dino are given"),
    ],
)
def test_a_wrong_option_is_told_in_one_sentence(table1, more, expected):
    code, err = table1(*more)
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1
