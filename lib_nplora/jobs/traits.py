"""What the name and the header of a LoRA file tell about it, without its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping

_ALWAYS = {"lcm": "LCM", "dmd2?": "DMD"}
_WITH_A_MODEL = {"turbo": "Turbo", "lightning": "Lightning", "hyper": "Hyper"}
"""Word in a file's name -> the distillation that it stands for; the second, ordinary words, beside a model or steps."""

_MODEL = r"sdxl|sd[\W_]?xl|sd[\W_]?v?\d|flux|qwen|z[\W_]?image|(?<![a-z])(?:sd|xl)(?![a-z])"
_STEPS = r"\d+[\W_]?steps?(?![a-z])"

_FAMILIES = {
    r"sd_v1|stable-diffusion-v1": "SD 1",
    r"sd_v2|stable-diffusion-v2": "SD 2",
    r"sdxl|stable-diffusion-xl": "SDXL",
    r"sd3|stable-diffusion-3": "SD 3",
    r"flux": "Flux",
    r"chroma": "Chroma",
    r"lumina": "Lumina",
    r"qwen": "Qwen-Image",
    r"anima": "Anima",
}
"""How trainers name the base model in a file's header -> its family."""


def accelerator(name: str) -> str | None:
    """The kind of accelerator LoRA, which makes pictures in few steps and holds no subject and no style; or None."""
    name = name.lower()
    words = {**_ALWAYS, **(_WITH_A_MODEL if re.search(f"{_MODEL}|{_STEPS}", name) else {})}
    for word, kind in words.items():
        if re.search(rf"(?:(?<![a-z])|(?<=sdxl)|(?<=flux)){word}(?:(?![a-z])|(?=sd|flux))", name):
            return kind
    return None


def family(metadata: Mapping[str, object]) -> str | None:
    """The family of the model that a LoRA was trained on, as kohya's and the Stability header name it; or None."""
    for field in ("ss_base_model_version", "modelspec.architecture"):
        for pattern, label in _FAMILIES.items():
            if re.match(pattern, str(metadata.get(field, "")).lower()):
                return label
    return None
