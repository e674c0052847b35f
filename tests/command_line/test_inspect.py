"""`python -m lib_nplora inspect`: what it prints of a pair of files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_nplora.command_line.main import main
from tests import loras

from ..reference import interference, k_lora
from ..reference.k_lora import Pair


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with content.safetensors and style.safetensors; the style lacks the content's first two."""
    content = loras.random_lora(loras.SD1, 4, 1, alpha=2)
    style = loras.random_lora(loras.SD1[2:], 3, 2)
    loras.write(tmp_path / "content.safetensors", content)
    loras.write(tmp_path / "style.safetensors", style)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def inspect(*arguments: str) -> int:
    return main(["inspect", "content.safetensors", "style.safetensors", *arguments])


def letters(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    assert inspect("--json", *arguments) == 0
    rows = json.loads(capsys.readouterr().out)["layers"]
    return {row["module"]: row["winners"] for row in rows}


def contested() -> dict[str, Pair]:
    """The attention layers that both hold, from the factors that were written."""
    content, style = loras.random_lora(loras.SD1, 4, 1, alpha=2), loras.random_lora(loras.SD1[2:], 3, 2)
    return {
        module.canonical: Pair(content[module].matrix(), style[module].matrix(), 4, 3)
        for module in loras.SD1[2:]
        if "attn" in module.dotted and module.component == "unet"
    }


@pytest.mark.parametrize(("method", "beta"), [("klora", 0.5), ("klora*", 1.3)])
@pytest.mark.parametrize("steps", [1, 4, 21])
def test_klora_s_winners_are_the_reference_s(folder, capsys, method, beta, steps):
    found = letters(capsys, "--method", method, "--steps", str(steps))
    pairs = contested()
    assert len(pairs) > 2
    assert found == k_lora.letters(pairs, steps, 1.5, beta, method == "klora*")


def test_options_change_the_schedule(folder, capsys):
    usual = letters(capsys, "--method", "klora", "--steps", "12")
    assert letters(capsys, "--method", "klora", "--steps", "12", "--beta", "100") != usual
    assert set(letters(capsys, "--method", "klora", "--steps", "12", "--alpha", "0", "--beta", "0").values()) == {
        "c" * 12
    }
    assert usual.keys() < letters(capsys, "--method", "klora", "--steps", "12", "--scope", "all").keys()


def test_fixed_changes_all_at_once(folder, capsys):
    assert set(letters(capsys, "--method", "fixed", "--steps", "6").values()) == {"cccsss"}


def test_the_text_shows_a_letter_for_each_step(folder, capsys):
    assert inspect("--method", "switch", "--steps", "5") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith("  cscsc")
    assert any("The content wins 60 % of" in line for line in out)


def test_blocks_parts_and_words_are_shown(folder, capsys):
    assert inspect("--mu", "hard") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layers", "overlap", "x", "unrelated", "removed", "content", "/", "style"]
    blocks = ["te1", "in", "in2", "in3", "in4", "mid", "out5", "out"]
    assert [line.split("  ")[0] for line in lines[1:10]] == [*blocks, "diffusion model"]
    assert any(line.startswith("The two share ") and "mu = hard removes" in line for line in lines)
    assert "Not counted: 2 layers" in lines[-2]


@pytest.mark.parametrize(("mu", "share"), [("0.5", 5 / 9), ("hard", 1.0)])
def test_json_holds_a_row_for_each_layer_that_both_hold(folder, capsys, mu, share):
    assert inspect("--mu", mu, "--content-weight", "2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    content, style = loras.random_lora(loras.SD1, 4, 1, alpha=2), loras.random_lora(loras.SD1[2:], 3, 2)
    modules = {module.canonical: module for module in loras.SD1[2:]}
    assert [row["module"] for row in told["layers"]] == sorted(modules)
    for row in told["layers"]:
        c, s = (side[modules[row["module"]]].matrix() for side in (content, style))
        expected = interference.row(2 * c, s, float("inf") if mu == "hard" else float(mu))
        assert row["overlap"] == pytest.approx(expected["overlap"], abs=1e-5)
        assert row["removed"] == pytest.approx(share * expected["overlap"], abs=1e-5)
        assert row["chance"] == pytest.approx(3 / c.shape[1], abs=1e-9)
        assert row["norm_ratio"] == pytest.approx(expected["norm_ratio"], rel=1e-5)
        assert 1 <= row["style_rank"] <= 3
        for name in ("removed", "style_rank", "angle"):
            assert row[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-5)
        assert row["part"] == ("te" if row["module"].startswith("lora_te") else "unet")
        assert "winners" not in row
    assert told["total"]["layers"] == len(modules)
    assert told["total"]["same_start"] is False
    assert told["total"]["removed"] == pytest.approx(share * told["total"]["overlap"], abs=1e-5)
    assert told["total"]["findings"][0].startswith("The two share ")


def test_all_json_is_of_numbers_that_json_knows(folder, capsys):
    assert inspect("--style-weight", "0", "--json") == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert {row["norm_ratio"] for row in told["layers"]} == {None}


def test_a_pair_at_weight_0_is_not_called_a_plain_merge(folder, capsys):
    assert inspect("--content-weight", "0", "--style-weight", "0") == 0
    out = capsys.readouterr().out
    assert "layers that both have are at weight 0" in out
    assert "plain merge" not in out


@pytest.mark.parametrize("steps", ["0", "-1", "x", "1.5", "100000"])
def test_steps_that_make_no_sense(folder, capsys, steps):
    assert inspect("--method", "klora", "--steps", steps) == 2
    assert f"steps={steps} is not a whole number from 1 to 10000" in capsys.readouterr().err


def test_what_changes_with_the_steps_cannot_be_saved(folder, capsys):
    assert main(["fuse", "content.safetensors", "style.safetensors", "-o", "out.safetensors", "--method", "klora"]) == 2
    assert "no file can hold" in capsys.readouterr().err
    assert not (folder / "out.safetensors").exists()
