"""The host's script that is our panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modules import scripts
from modules.infotext_utils import PasteField

from . import other_machines, panel, settings, tagging
from .infotext import enabled, label
from .said import say


class NploraScript(scripts.Script):  # type: ignore[misc]
    """One instance a tab."""

    def title(self) -> str:
        return "NP-LoRA"

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> Sequence[Any]:
        fields = panel.build("img2img" if is_img2img else "txt2img", settings.panel_defaults())
        targets = {name: enabled if name == "enabled" else label(name) for name in fields}
        self.infotext_fields = [PasteField(component, targets[name]) for name, component in fields.items()]
        self.paste_field_names = list(targets.values())
        return list(fields.values())

    def process(self, p: Any, *args: Any) -> None:
        tagging.write(p, args)

    def postprocess_image(self, p: Any, pp: Any, *args: Any) -> None:
        """Before this picture's parameters are written, and after other machines' have come."""
        for remark in other_machines.remarks(p, args):
            say(p, remark)

    def postprocess(self, p: Any, processed: Any, *args: Any) -> None:
        """Where other machines make all pictures, the host calls this alone, and has gathered its comments by then."""
        known = set(p.comments)
        self.postprocess_image(p, None, *args)
        if new := [comment for comment in p.comments if comment not in known]:
            processed.comments += "".join(f"{comment}\n" for comment in new)
