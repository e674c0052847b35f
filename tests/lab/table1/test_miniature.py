"""The protocol on the miniature, with its judge in CLIP's and DINO's place; killed twice, the table is the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab import shipped
from lab.table1.__main__ import main
from tests.lab.table1.models import save_side

ROWS = ("direct", "NP hard")
ENDINGS = ("json", "md", "tex")

KILLED = """
import os, signal, sys
from lab.table1 import drawing
from lab.table1.__main__ import main
pictures, made, draw = int(sys.argv[1]), [], drawing.draw

def drawn(*given):
    if len(made) == pictures:
        if cut := sorted(drawing.Path(sys.argv[2]).glob("*.jsonl")):
            with cut[0].open("a") as file:
                file.write('{"subject": "fox", "sty')
        os.kill(os.getpid(), signal.SIGKILL)
    made.append(1)
    return draw(*given)

drawing.draw = drawn
main(sys.argv[3:])
"""
"""Draws so many pictures, begins a line that it does not end, and is killed while it would draw the next."""


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    prompts = {
        "content": ("fox", "strawberry", "a sks animal"),
        "style": ("neon", "duotone", "{a cat face} in swz style"),
    }
    for role, (*names, prompt) in prompts.items():
        for name in names:
            made = save_side(folder / role / name, prompt, size=48)
            for seed in (0, 1):
                (made / f"{seed}.safetensors").symlink_to(shipped.lora(name))
    return folder


def command(pairs: Path, out: Path) -> list[str]:
    given = ["--model", str(shipped.BASE), "--pairs", str(pairs), "--judge", str(shipped.JUDGE), "--out", str(out)]
    return [*given, "--only", "fox/neon", "strawberry/duotone", "--rows", *ROWS, "--noises", "1", "--steps", "2"]


def test_the_table_of_a_run_that_was_killed_twice_is_that_of_one_that_was_not(pairs, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main(command(pairs, whole)) == 0
    for pictures in (1, 2):
        told = [str(pictures), str(stopped), *command(pairs, stopped)]
        done = subprocess.run(
            [sys.executable, "-c", KILLED, *told], cwd=Path(__file__).parents[3], env=os.environ, capture_output=True
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not (stopped / "table1.md").exists()
    lines = [line for path in stopped.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert sum(line.endswith("}") for line in lines) == 1 + 2
    assert main(command(pairs, stopped)) == 0
    for ending in ENDINGS:
        assert (stopped / f"table1.{ending}").read_bytes() == (whole / f"table1.{ending}").read_bytes()
    told = json.loads((whole / "table1.json").read_text())
    assert [[row["S_harm"]["pairs"] for row in one["rows"]] for one in told["tables"]] == [
        [2, 2],
        [2, 2],
    ]
    before = {path: path.stat().st_mtime_ns for path in (whole / "pictures").rglob("*.png")}
    assert main(command(pairs, whole)) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (whole / "pictures").rglob("*.png")}
    (pairs / "content" / "fox" / "prompt.txt").write_text("a sks animal in noto style")
    assert main(command(pairs, whole)) == 0
    changed = {path.parent.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed == {"fox-neon-0-0", "fox-neon-0-1"}


def test_the_miniature_is_for_judges_alone(pairs, tmp_path, capsys):
    told = command(pairs, tmp_path)
    told[told.index("--judge") + 1] = str(tmp_path / "gone")
    assert main(told) == 2
    assert "there is no judge" in capsys.readouterr().err
    told[told.index("--judge")] = "--clip"
    assert main(told) == 2
    assert "holds a MiniPipeline, not a StableDiffusionXLPipeline" in capsys.readouterr().err


def test_loras_of_the_miniature_are_trained_elsewhere(pairs, tmp_path, capsys):
    save_side(tmp_path / "content" / "fox", "a sks animal")
    save_side(tmp_path / "style" / "neon", "{a fox} in swz style")
    assert main(command(tmp_path, tmp_path / "out")) == 2
    assert "python -m lab.train_lora trains the miniature's LoRAs" in capsys.readouterr().err
