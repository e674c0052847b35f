"""The page of a host that shows none: components that hold their values, the scripts among them, their settings."""

from __future__ import annotations

import json
import types
from typing import Any, ClassVar

from .common import module


class Component:
    """Any of Gradio's: it holds what it was made with. What a browser does with it is another suite's."""

    made: ClassVar[list[Component]] = []

    def __init__(self, *args: Any, label: str | None = None, **kwargs: Any) -> None:
        self.label = label
        self.value = kwargs.get("value", args[0] if args else None)
        self.elem_id = kwargs.get("elem_id")
        self.texts = [label, kwargs.get("info"), kwargs.get("tooltip")]
        self.made.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def _event(self, fn, inputs=None, outputs=None, *, _js=None, queue=None, show_progress=None):
        return types.SimpleNamespace(then=self._event)

    change = input = click = blur = focus = _event


class Titled(Component):
    def __init__(self, value="", **kwargs):
        super().__init__(value, **kwargs)
        self.texts.append(value)


class Script:
    """`modules.scripts.Script`, as far as one that is always visible meets it."""

    infotext_fields = None
    paste_field_names = None
    args_from = args_to = None
    is_img2img = False

    def process(self, p, *args):
        pass

    def postprocess_image(self, p, pp, *args):
        pass

    def after_extra_networks_activate(self, p, *args, **kwargs):
        pass


class PasteField(tuple):
    def __new__(cls, component, target, *, api=None):
        return super().__new__(cls, (component, target))


class OptionInfo:
    def __init__(self, default=None, label="", component=None, component_args=None, onchange=None, section=None):
        self.default = default
        self.onchange = onchange
        self.texts = [label, *(component_args or {}).get("choices", ())]

    def info(self, info):
        self.texts.append(f"({info})")
        return self

    def needs_reload_ui(self):
        return self


class Options:
    """`shared.opts`: settings by name."""

    def __init__(self) -> None:
        self.labels: dict[str, OptionInfo] = {}

    def add_option(self, key, info):
        self.labels[key] = info
        self.__dict__.setdefault(key, info.default)

    def set(self, key: str, value: Any) -> None:
        setattr(self, key, value)
        if self.labels[key].onchange:
            self.labels[key].onchange()


class Page:
    """The modules that a script's page is made with, and the scripts that were found."""

    def __init__(self, lora_dir) -> None:
        self.opts = Options()
        self.scripts_data: list[types.SimpleNamespace] = []
        self.alwayson: list[Script] = []
        self.words: dict[str, str] = {}
        self.cmd_opts = types.SimpleNamespace(lora_dir=str(lora_dir))

    def modules(self) -> dict[str, types.ModuleType]:
        components = ("Row", "Slider", "Number", "Checkbox", "Dropdown", "Textbox", "Radio", "HTML", "Progress")
        Component.made.clear()
        return {
            "gradio": module(
                "gradio", update=dict, Button=Titled, Accordion=Titled, **dict.fromkeys(components, Component)
            ),
            "modules.scripts": module(
                "modules.scripts", Script=Script, AlwaysVisible=object(), scripts_data=self.scripts_data
            ),
            "modules.shared": module("modules.shared", opts=self.opts, cmd_opts=self.cmd_opts, OptionInfo=OptionInfo),
            "modules.localization": module("modules.localization", localization_js=self.localization_js),
            "modules.infotext_utils": module("modules.infotext_utils", PasteField=PasteField),
            "modules.ui_components": module("modules.ui_components", InputAccordion=Component, ToolButton=Component),
            "modules.ui_common": module(
                "modules.ui_common", create_refresh_button=lambda component, method, args, elem_id: Component()
            ),
        }

    def localization_js(self, name: str) -> str:
        return f"window.localization = {json.dumps(self.words)}"

    def load(self, namespace: dict[str, Any]) -> None:
        """Take the scripts out of a file that was run."""
        made = module("nplora.py", **namespace)
        self.scripts_data[:] = [data for data in self.scripts_data if data.module.__name__ != made.__name__]
        for found in namespace.values():
            if isinstance(found, type) and issubclass(found, Script):
                self.scripts_data.append(types.SimpleNamespace(script_class=found, module=made))

    def show(self) -> list[Any]:
        """Make the scripts' page. Returns the values of its components, which are the arguments that scripts get."""
        self.alwayson = [data.script_class() for data in self.scripts_data if issubclass(data.script_class, Script)]
        args: list[Any] = [0]
        for script in self.alwayson:
            controls = script.ui(script.is_img2img)
            script.args_from, script.args_to = len(args), len(args) + len(controls)
            args += [control.value for control in controls]
        return args
