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
    "hyper": "Hyper",
    "pcm": "PCM",
    "tcd": "TCD",
    "flash": "Flash",
}
_WITH_STEPS = {**_ORDINARY, "distill(?:ed)?": "step distillation"}
"""Word in a file's name -> the distillation that it stands for. The latter two mean subjects, styles and models, too:
they tell beside a small number of steps, if the next word says nothing more, and the second's in a name that holds
nothing but one of them, a model and words that say nothing more. Lightning, which is also a character, must then stand
behind the model."""

_FEW_STEPS = r"(?<!\d)(?:1[0-6]|[1-9])[\W_]?steps?(?![a-z])"
_MODEL = (
    "flux|qwen|krea|chroma|wan|ltx|pixart|ernie|anima|lumina|hunyuan"
    r"|(?<![a-z])z[\W_]?image|sdxl|(?<![a-z])sd|xl(?![a-z])"
)
_TURBO_MODEL = r"(?:image|krea[\W_]?2?|sd[\W_]?xl|large|medium)[\W_]?turbo"
"""Models that are fast themselves, for which there are subjects and styles."""
_SAYS_NO_MORE = (
    "safetensors|converted|diffusers|distilled|normalcfg|smallcfg|lcmlike|distill|adapter|schnell|medium|comfyui|comfy"
    "|large|image|kohya|patch|steps|alpha|klein|loras|base|beta|bf16|edit|full|heun|lora|rank|step|t2v|i2v|cfg|dev|dim"
    r"|fp|hd|pro|[brvz](?![a-z])|\d"
)


def accelerator(name: str) -> str | None:
    """The kind of accelerator LoRA, which makes pictures in few steps and holds no subject and no style; or None."""
    name = name.lower()
    if found := _kinds(_ALWAYS, name):
        return found[0]
    if re.search(_FEW_STEPS, name):
        before_no_more = rf"(?=[\W_]*(?:{_MODEL}|{_SAYS_NO_MORE}|$))"
        if found := _kinds(_WITH_STEPS, re.sub(_TURBO_MODEL, " ", name), before_no_more):
            return found[0]
    found = _kinds(_ORDINARY, name)
    rest = re.sub("|".join((_MODEL, *_ORDINARY, _SAYS_NO_MORE)), " ", name)
    if len(found) != 1 or not re.search(_MODEL, name) or re.search(r"[^\W_]", rest):
        return None
    return None if re.search(rf"lightning.*?(?:{_MODEL})", name) else found[0]


def _kinds(words: Mapping[str, str], name: str, behind: str = "") -> list[str]:
    """What the words that the name holds stand for.

    behind
        Pattern of what must follow a word.
    """
    ends = rf"(?:(?![a-z])|(?=sd|flux|comfy)){behind}"
    return [kind for word, kind in words.items() if re.search(rf"(?:(?<![a-z])|(?<=sdxl)|(?<=flux)){word}{ends}", name)]
