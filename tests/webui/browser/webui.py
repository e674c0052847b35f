"""A stand-in's page as a running process."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

from playwright.sync_api import Page

from tests.hosts.driver import write_lora
from tests.hosts.standins.common import MODULES

from . import machine

ROOT = Path(__file__).parents[3]
ODD = "Van Gogh, v1.5 (röt)"
NAMES = ("dog", "hat", "vangogh", ODD)
PATIENCE = 120
"""Seconds until a page must be there."""


class WebUI:
    """Runs while it is entered.

    gradio
        Its version.
    url
        Where its page is.
    lora_dir
        Holds a LoRA of each of NAMES.
    """

    def __init__(self, gradio: str, folder: Path) -> None:
        self.gradio = gradio
        self._log = folder / "log.txt"
        self.lora_dir = folder / "loras"
        self.lora_dir.mkdir()
        for seed, name in enumerate(NAMES):
            self.add_lora(name, seed)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/"

    def add_lora(self, name: str, seed: int) -> Path:
        path = self.lora_dir / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        return write_lora(path, MODULES, seed=seed)

    def __enter__(self) -> WebUI:
        arguments = ["--port", str(self._port), "--lora-dir", str(self.lora_dir)]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [machine.interpreter(self.gradio), "-m", "tests.webui.browser.page", *arguments],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        for _ in range(PATIENCE * 10):
            if "ready" in self.log().splitlines() or self._process.poll() is not None:
                break
            time.sleep(0.1)
        if "ready" not in self.log().splitlines():
            self.__exit__()
            raise RuntimeError(f"the page did not start:\n{self.log()}")
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def log(self) -> str:
        return self._log.read_text()

    def open(self, page: Page, query: str = "") -> None:
        ended = self._process.poll()
        assert ended is None, f"the page's process has ended with {ended}:\n{self.log()}"
        page.goto(self.url + query)
        page.wait_for_selector("#txt2img_nplora .input-accordion-checkbox")
