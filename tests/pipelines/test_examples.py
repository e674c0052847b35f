"""The examples for Python that the documents show run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pipelines import loras, tiny

ROOT = Path(__file__).parents[2]
EXAMPLES = [
    example
    for page in sorted(ROOT.glob("docs/*.md"))
    for example in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_run(number, tmp_path, monkeypatch):
    pipe = tiny.made("SD 1.5")
    for seed, name in enumerate(("dog", "hat", "vangogh")):
        loras.write(tmp_path / f"{name}.safetensors", pipe, seed=seed)
    before = loras.weights(pipe)
    monkeypatch.chdir(tmp_path)
    names = {"pipe": pipe}
    exec("from lib_nplora.pipelines import fuse_into\n" + EXAMPLES[number], names)
    assert names["picture"].size == (16, 16)
    now = loras.weights(pipe)
    assert all(now[name].equal(value) for name, value in before.items())


def test_there_are_examples():
    assert len(EXAMPLES) >= 2
