"""What the browser tests need of a machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

IN_CI = os.environ.get("CI") == "true"

GRADIOS = {"3.41.2": "NPLORA_GRADIO_3", "4.40.0": "NPLORA_GRADIO_4"}
"""Version -> the environment variable that names a Python that has it, as .ci/run sets up."""

CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser"))), None)
NO_CHROMIUM = "there is no chromium on the PATH"


def interpreter(gradio: str) -> str:
    return os.environ.get(GRADIOS[gradio], "")


def missing(gradio: str) -> str | None:
    """Why there is no Python with that Gradio, None if there is one."""
    python = interpreter(gradio)
    if not python:
        return f"{GRADIOS[gradio]} names no Python with Gradio {gradio}: .ci/run makes one"
    return None if Path(python).is_file() else f"{GRADIOS[gradio]} names no file: {python}"
