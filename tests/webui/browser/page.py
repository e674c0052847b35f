"""The page of a stand-in for a WebUI with this extension in it, on whichever Gradio runs it.

python -m tests.webui.browser.page --port 7860 --lora-dir DIR
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from tests.hosts.standins.a1111 import A1111
from tests.hosts.standins.common import Callbacks, module
from tests.hosts.standins.forge import Forge

from .standin import components, dialect
from .standin.infotext import Pasting
from .standin.scripts import Scripts
from .standin.tab import Tab

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent / "standin"


class Page:
    """A WebUI from its start to its page."""

    def __init__(self, lora_dir: Path) -> None:
        dialect.teach()
        self._callbacks = Callbacks(lambda error: logging.error("a callback failed", exc_info=error))
        self._pasting = Pasting(self._callbacks)
        self._model = (A1111 if dialect.IS_3 else Forge)(lora_dir)
        scripts, of_page = Scripts(), self._model.page.modules()
        self._install(
            {
                "modules": module("modules", __path__=[]),
                "modules.extra_networks": self._model.extra_networks,
                "modules.sd_models": module("modules.sd_models", model_data=self._model.model_data),
                **components.modules(),
                **{name: of_page[name] for name in ("modules.shared", "modules.localization")},
                **scripts.modules(),
                "modules.script_callbacks": self._callbacks.module(),
                **self._pasting.modules(),
                **self._model.host_modules(),
            }
        )
        for path in sorted((ROOT / "scripts").glob("*.py")):
            scripts.load(path)
        self._model.extra_networks.initialize()
        self._callbacks.call("before_ui")
        self._callbacks.call("ui_settings")
        self._model.register_builtin_lora()
        self._model.load_checkpoint(1)
        self._found = scripts.found

    @staticmethod
    def _install(modules: dict[str, Any]) -> None:
        for name, made in modules.items():
            sys.modules[name] = made
            parent, _, child = name.rpartition(".")
            if parent in modules:
                setattr(modules[parent], child, made)

    def blocks(self) -> gr.Blocks:
        theme = gr.themes.Default(font=["sans-serif"], font_mono=["monospace"])
        with gr.Blocks(analytics_enabled=False, theme=theme, title="Stand-in") as blocks:
            with gr.Tabs(elem_id="tabs"):
                txt2img, img2img = (
                    Tab(name, self._found, self._model.extra_networks, self._pasting) for name in ("txt2img", "img2img")
                )
            txt2img.connect_send(img2img)
        return blocks

    def run(self, port: int) -> None:
        _serve_in_head()
        logging.getLogger("nplora").addHandler(logging.StreamHandler())
        blocks = self.blocks()
        app, _, _ = blocks.queue().launch(server_port=port, prevent_thread_lock=True, quiet=True)
        self._callbacks.call("app_started", blocks, app)
        print("ready", flush=True)
        threading.Event().wait()


def _serve_in_head() -> None:
    """Put the host's JavaScript, the extension's after it, into the page's head; both style sheets at its end."""
    scripts = [HERE / "page.js", *sorted((ROOT / "javascript").glob("*.js"))]
    styles = [path for path in (HERE / "page.css", ROOT / "style.css") if path.is_file()]
    head = "".join(f"<script>{path.read_text()}\n//# sourceURL={path.name}</script>" for path in scripts)
    end = "".join(f"<style>{path.read_text()}</style>" for path in styles)
    original = gr.routes.templates.TemplateResponse

    def response(*args: Any, **kwargs: Any) -> Any:
        made = original(*args, **kwargs)
        page = made.body.decode().replace("</head>", f"{head}</head>", 1).replace("</body>", f"{end}</body>", 1)
        made.body = page.encode()
        made.init_headers()
        return made

    gr.routes.templates.TemplateResponse = response


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--lora-dir", type=Path, required=True)
    arguments = parser.parse_args()
    Page(arguments.lora_dir).run(arguments.port)
