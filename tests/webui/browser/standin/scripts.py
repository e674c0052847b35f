"""`modules.scripts`: finds an extension's scripts, gives them their place on the page, runs them."""

from __future__ import annotations

import importlib.util
import types
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from tests.hosts.standins.common import module

AlwaysVisible = object()
ScriptClassData = namedtuple("ScriptClassData", ["script_class", "path", "basedir", "module"])


class Script:
    is_txt2img = False
    is_img2img = False
    infotext_fields = None
    paste_field_names = None

    def title(self):
        raise NotImplementedError

    def ui(self, is_img2img):
        pass

    def show(self, is_img2img):
        return True

    def setup(self, p, *args):
        pass

    def before_process(self, p, *args):
        pass

    def process(self, p, *args):
        pass

    def after_extra_networks_activate(self, p, *args, **kwargs):
        pass

    def postprocess(self, p, processed, *args):
        pass


class Runner:
    """The scripts of one tab.

    inputs
        Their components, in the order in which their values are handed to them.
    """

    def __init__(self, found: Sequence[ScriptClassData], is_img2img: bool) -> None:
        self.inputs: list[Any] = []
        self.infotext_fields: list[Any] = []
        self.paste_field_names: list[str] = []
        self._is_img2img = is_img2img
        self._scripts: list[tuple[Script, slice]] = []
        for data in found:
            script = data.script_class()
            script.is_img2img, script.is_txt2img = is_img2img, not is_img2img
            assert script.title()
            if script.show(is_img2img) is AlwaysVisible:
                self._scripts.append((script, slice(0)))

    def show(self) -> None:
        """Put the scripts on the page."""
        for i, (script, _) in enumerate(self._scripts):
            with gr.Group():
                controls = script.ui(self._is_img2img)
            self._scripts[i] = script, slice(len(self.inputs), len(self.inputs) + len(controls))
            self.inputs += controls
            self.infotext_fields += script.infotext_fields or []
            self.paste_field_names += script.paste_field_names or []

    def run(self, event: str, p: Any, *args: Any, **kwargs: Any) -> None:
        """Call a method of every script, with the values of its own components last."""
        for script, own in self._scripts:
            getattr(script, event)(p, *args, *p.script_args[own], **kwargs)

    def after_extra_networks_activate(self, p: Any, **kwargs: Any) -> None:
        self.run("after_extra_networks_activate", p, **kwargs)


class Scripts:
    """The scripts of all extensions; empty until they are loaded."""

    def __init__(self) -> None:
        self.found: list[ScriptClassData] = []

    def modules(self) -> dict[str, types.ModuleType]:
        this = module("modules.scripts", Script=Script, AlwaysVisible=AlwaysVisible, scripts_data=self.found)
        return {"modules.scripts": this}

    def load(self, path: Path) -> None:
        """Run a file of an extension, under its name as the hosts do, which need no package for it."""
        spec = importlib.util.spec_from_file_location(path.name, path)
        assert spec
        assert spec.loader
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        for value in vars(loaded).values():
            if isinstance(value, type) and issubclass(value, Script):
                self.found.append(ScriptClassData(value, str(path), str(path.parent.parent), loaded))
