"""That the benchmark runs and says what it should; what it measures is not asserted."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from .bench import inspecting, matrices, products, schedule
from .bench.sdxl import random_lora, shapes


def test_the_layers_are_those_of_sdxl():
    layers = list(shapes())
    assert len(layers) == len({name for name, _, _ in layers}) == 700
    assert sum(out * in_ for _, out, in_ in layers) == sum(
        count * width * (6 * width + 2 * 2048 + 12 * width) for width, count in ((640, 10), (1280, 60))
    )


def test_a_pair_shares_its_layers():
    content, style = random_lora("content", 2, 1, 20), random_lora("style", 2, 2, 20)
    assert list(content.deltas) == list(style.deltas)
    assert len(content.deltas) == 20
    assert content.digest != style.digest


def test_it_prints_its_ratio_last():
    command = [sys.executable, "-m", "tests.bench", "--layers", "7", "--rank", "4", "--rounds", "1"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=120)
    *rest, last = done.stdout.splitlines()
    assert re.fullmatch(r"ratio: \d+\.\d\d", last)
    for line in ("direct: ", "fused: ", "maths, nothing cached: ", "maths, another mu: "):
        assert any(text.startswith(line) for text in rest)


@pytest.fixture
def printed(monkeypatch, capsys) -> Callable[..., list[str]]:
    """Lines of a measurement that runs here."""

    def printed(bench: ModuleType, arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", [bench.__name__, *arguments.split()])
        bench.main()
        return capsys.readouterr().out.splitlines()

    return printed


def test_matrices_are_compared_with_adding_one_lora(printed):
    lines = printed(matrices, "--out 64 --in 48 --rounds 1")
    ratios = dict(line.split(": ") for line in lines[1:])
    assert ratios["added"] == "1.0 x added"
    assert ratios.keys() > {"factors sought", "decomposed from factors", "decomposed from a matrix", "projected"}


def test_a_schedule_is_compared_with_a_plain_merge(printed):
    lines = dict(line.split(": ") for line in printed(schedule, "--layers 9 --rank 2 --rounds 1")[1:])
    assert lines["direct"].endswith("s, 1.00 x direct")
    assert lines.keys() > {"klora, first", "klora, again", "1280 x 1280, 4 largest"}


def test_inspecting_is_compared_with_fusing(printed):
    *_, fuse, inspect, ratio = printed(inspecting, "--layers 6 --rank 2 --rounds 1")
    assert fuse.startswith("fuse: ")
    assert inspect.startswith("inspect: ")
    assert re.fullmatch(r"ratio: \d+\.\d\d", ratio)


def test_products_are_compared_with_plain_loras(printed):
    first, *lines = printed(products, "--layers 2 --rank 2 --rounds 1")
    assert first.startswith("2 layers, rank 4, ")
    for line, name in zip(lines, ("inspect", "fuse"), strict=True):
        assert re.fullmatch(rf"{name}: \d+\.\d\d s plain, \d+\.\d\d s LoHa x LoKr, ratio: \d+\.\d\d", line)
