"""What the name and the header of a LoRA file tell about it, without its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping

_ALWAYS = {
    "lcm": "LCM",
    "dmd2?": "DMD",
    "lightx2v": "LightX2V",
    "causvid": "CausVid",
    r"steps?[\W_]?distill(?:ed)?": "step distillation",
}
_ORDINARY = {
    "turbo": "Turbo",
    "lightning": "Lightning",
    r"hyper(?![\W_]?(?:real|detail))": "Hyper",
    "pcm": "PCM",
    "tcd": "TCD",
    "flash": "Flash",
}
"""Word in a file's name -> the distillation that it stands for. The second mean subjects, styles and models, too: they
tell beside a small number of steps, or in a name that holds nothing but a model and words that say nothing more."""

_FEW_STEPS = r"(?<!\d)(?:1[0-6]|[1-9])[\W_]?steps?(?![a-z])"
_MODEL = r"flux|qwen|krea|chroma|wan|ltx|(?<![a-z])z[\W_]?image|(?<![a-z])sd(?:xl)?|xl(?![a-z])"
_TURBO_MODEL = r"(?:image|krea[\W_]?2?|sd[\W_]?xl|large|medium)[\W_]?turbo"
"""Models that are fast themselves, for which there are subjects and styles."""
_SAYS_NO_MORE = (
    "safetensors|converted|diffusers|distilled|normalcfg|smallcfg|distill|adapter|schnell|medium|comfyui|comfy|edit"
    "|large|image|kohya|patch|steps|alpha|klein|loras|base|beta|bf16|full|lora|rank|step|t2v|i2v|cfg|dev|dim|fp|hd|pro"
    r"|[brvz](?![a-z])|\d"
)


def accelerator(name: str) -> str | None:
    """The kind of accelerator LoRA, which makes pictures in few steps and holds no subject and no style; or None."""
    name = name.lower()
    if kind := _kind(_ALWAYS, name):
        return kind
    if re.search(_FEW_STEPS, name) and (kind := _kind(_ORDINARY, re.sub(_TURBO_MODEL, " ", name))):
        return kind
    kind = _kind(_ORDINARY, name)
    rest = re.sub("|".join((_MODEL, *_ORDINARY, _SAYS_NO_MORE)), " ", name)
    return kind if re.search(_MODEL, name) and not re.search(r"[^\W_]", rest) else None


def _kind(words: Mapping[str, str], name: str) -> str | None:
    """What the first of the words that the name holds stands for."""
    for word, kind in words.items():
        if re.search(rf"(?:(?<![a-z])|(?<=sdxl)|(?<=flux)){word}(?:(?![a-z])|(?=sd|flux))", name):
            return kind
    return None
