"""The scale that PEFT and diffusers keep beside the tensors: in the file's header, or in adapter_config.json."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FileError

_COMPONENTS = ("unet", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class PeftScale:
    """The scale of one model's modules.

    alpha
        lora_alpha of the modules that no pattern names.
    patterns
        Pattern of the names of modules -> their alpha.
    rank_stabilised
        Whether the scale is alpha / sqrt(rank) and not alpha / rank (rsLoRA, arXiv 2312.03732).
    """

    alpha: float
    patterns: Mapping[re.Pattern[str], float]
    rank_stabilised: bool

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PeftScale:
        """Read a LoraConfig as PEFT writes it. Raises whatever JSON of another shape leads to."""
        patterns = {
            re.compile(rf"(.*\.)?({ending})"): float(alpha)
            for ending, alpha in (config.get("alpha_pattern") or {}).items()
        }
        return cls(float(config["lora_alpha"]), patterns, bool(config.get("use_rslora")))

    def of(self, module: str, rank: int) -> float:
        """The scale of a module, named as in its model."""
        alphas = (alpha for pattern, alpha in self.patterns.items() if pattern.fullmatch(module))
        return next(alphas, self.alpha) / (math.sqrt(rank) if self.rank_stabilised else rank)


@dataclass(frozen=True)
class PeftScales:
    """What a file says about the scale of its modules.

    models
        By component (`unet`, `text_encoder`, `text_encoder_2`); by an empty string where the file is of one model.
    """

    models: Mapping[str, PeftScale]

    def of(self, module: str, rank: int) -> float:
        """The scale of a module, named as in the file; 1 if nothing is said about it."""
        component, _, rest = module.partition(".")
        if component not in _COMPONENTS:
            component, rest = "", module
        return self.models[component].of(rest, rank) if component in self.models else 1.0


def read_scales(path: Path, metadata: Mapping[str, str]) -> PeftScales:
    """Read what stands in the header's `metadata` of the file, or beside a PEFT file. Raises FileError."""
    try:
        if "lora_adapter_metadata" in metadata:
            return _by_component(json.loads(metadata["lora_adapter_metadata"]))
        config = path.with_name("adapter_config.json")
        if path.name == "adapter_model.safetensors" and config.is_file():
            return PeftScales({"": PeftScale.from_config(json.loads(config.read_text(encoding="utf-8")))})
    except (KeyError, TypeError, ValueError, AttributeError, re.error, OSError) as error:
        raise FileError(
            f"the LoRA settings that belong to '{path.name}' cannot be read ({error}): download or save it again"
        ) from error
    return PeftScales({})


def _by_component(config: Mapping[str, Any]) -> PeftScales:
    """Split keys such as `unet.lora_alpha`, as diffusers writes them, by component."""
    if "lora_alpha" in config:
        return PeftScales({"": PeftScale.from_config(config)})
    models = {}
    for component in _COMPONENTS:
        prefix = f"{component}."
        own = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
        if own:
            models[component] = PeftScale.from_config(own)
    return PeftScales(models)
