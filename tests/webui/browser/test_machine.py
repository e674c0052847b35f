"""CI has what the browser tests need, so none of them is skipped there."""

from __future__ import annotations

import subprocess

import pytest

from . import machine

pytestmark = pytest.mark.skipif(
    not machine.IN_CI, reason="a developer's machine may lack a browser and the two Gradios"
)


def test_there_is_a_browser():
    assert machine.CHROMIUM is not None, machine.NO_CHROMIUM


@pytest.mark.parametrize("gradio", machine.GRADIOS)
def test_there_is_a_python_with_that_gradio(gradio):
    assert machine.missing(gradio) is None
    code = "import importlib.metadata; print(importlib.metadata.version('gradio'))"
    found = subprocess.run([machine.interpreter(gradio), "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == gradio
