"""The scale that a file keeps beside its tensors: in its header, or in adapter_config.json as PEFT does."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FileError

COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")

_DIFFUSION_MODEL = "diffusion_model"
"""How names of modules start where ComfyUI's trainers and their like write a UNet or a transformer."""

_ALPHAS = ("lora_alpha", "network_alpha", "alpha")
_RANKS = ("r", "rank", "lora_rank")
"""Loose fields of a header, the first of which counts, each also with a component before it (`transformer.lora_alpha`).

kohya's ss_network_alpha is none of them: kohya's scripts write a tensor for each alpha, and whoever takes these tensors
out folds them into the factors and leaves the field.
"""

_MOST_PATTERNS = 500
"""Patterns that are more than a name; every module is compared with each."""
_MOST_REPEATS = 4
"""Repetitions in a pattern; the time that a comparison takes grows with their power."""


@dataclass(frozen=True)
class Patterns:
    """Numbers by names of modules, or by patterns of names.

    names
        Name, or its last part -> place in the order of the file, number.
    patterns
        The same by pattern.
    """

    names: Mapping[str, tuple[int, float]]
    patterns: Mapping[re.Pattern[str], tuple[int, float]]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Patterns:
        """Raises ValueError, re.error and whatever JSON of another shape leads to."""
        names, patterns = {}, {}
        for order, (text, number) in enumerate(config.items()):
            if re.fullmatch(r"[\w.\-]+", text):
                names[text] = order, _finite(number)
            else:
                patterns[_compiled(text)] = order, _finite(number)
        if len(patterns) > _MOST_PATTERNS:
            raise ValueError(f"more than {_MOST_PATTERNS} patterns")
        return cls(names, patterns)

    def of(self, module: str) -> float | None:
        """The number of a module: by the first entry that is its name, or the end of it."""
        parts = module.split(".")
        endings = (".".join(parts[i:]) for i in range(len(parts)))
        found = [self.names[ending] for ending in endings if ending in self.names]
        found += [entry for pattern, entry in self.patterns.items() if pattern.fullmatch(module)]
        return min(found)[1] if found else None


def _finite(number: Any) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is not a finite number")
    return value


def _compiled(text: str) -> re.Pattern[str]:
    """A pattern as PEFT understands it, which cannot take long to be compared."""
    if len(re.findall(r"[*+?{]", text)) > _MOST_REPEATS or re.search(r"\)[*+?{]", text):
        raise ValueError(f"the pattern {text[:80]!r} repeats too much")
    return re.compile(rf"(.*\.)?({text})")


@dataclass(frozen=True)
class PeftScale:
    """The scale of one model's modules.

    alpha
        lora_alpha of the modules that no pattern names.
    rank
        The rank of the modules whose shapes do not tell it.
    rank_stabilised
        Whether the scale is alpha / sqrt(rank) and not alpha / rank (rsLoRA, arXiv 2312.03732).
    """

    alpha: float
    alphas: Patterns
    rank: float
    ranks: Patterns
    rank_stabilised: bool

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PeftScale:
        """Read a LoraConfig, LoHaConfig or LoKrConfig as PEFT writes it.

        Raises whatever JSON of another shape leads to.
        """
        alpha = _finite(config["lora_alpha"] if "lora_alpha" in config else config["alpha"])
        rank = _finite(config.get("r") or abs(alpha) or 1)
        ranks = Patterns.from_config(config.get("rank_pattern") or {})
        lowest = min([rank, *(number for _, number in (*ranks.names.values(), *ranks.patterns.values()))])
        if lowest < 0:
            raise ValueError(f"a rank of {lowest:g}")
        return cls(
            alpha,
            Patterns.from_config(config.get("alpha_pattern") or {}),
            rank,
            ranks,
            bool(config.get("use_rslora")),
        )

    def of(self, module: str, rank: int | None) -> float:
        """The scale of a module, named as in its model, of this rank."""
        alpha = self.alphas.of(module)
        divisor = rank or self.ranks.of(module) or self.rank
        return (self.alpha if alpha is None else alpha) / (math.sqrt(divisor) if self.rank_stabilised else divisor)


@dataclass(frozen=True)
class PeftScales:
    """What a file says about the scale of its modules.

    models
        Component (`unet`, `text_encoder`, ...) -> its scale; an empty string where the file is of one model.
    unread
        Loose fields of the header that should be an alpha and are not, as `name=value`.
    """

    models: Mapping[str, PeftScale]
    unread: tuple[str, ...] = ()

    def of(self, module: str, rank: int | None) -> float:
        """The scale of a module, named as in the file; 1 if nothing is said about it."""
        component, _, rest = module.partition(".")
        if component not in self.models and component not in COMPONENTS:
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
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, re.error, OSError) as error:
        raise FileError(
            f"the LoRA settings that belong to '{path.name}' cannot be read ({error}): download or save it again"
        ) from error
    return _loose(metadata)


def _loose(metadata: Mapping[str, str]) -> PeftScales:
    """Read fields that stand in the header one by one. What is no alpha there is no reason to refuse the file."""
    models: dict[str, PeftScale] = {}
    unread: list[str] = []
    for component in ("", *COMPONENTS):
        prefix = f"{component}." if component else ""
        name = next((prefix + alpha for alpha in _ALPHAS if prefix + alpha in metadata), None)
        if name is None:
            continue
        alpha = _positive(metadata[name])
        if alpha is None:
            unread.append(f"{name}={metadata[name][:40]}")
            continue
        ranks = (_positive(metadata[prefix + rank]) for rank in _RANKS if prefix + rank in metadata)
        config = {
            "lora_alpha": alpha,
            "r": next(filter(None, ranks), None),
            "use_rslora": metadata.get(f"{prefix}use_rslora", "").strip().lower() in ("true", "1"),
        }
        models[component] = PeftScale.from_config(config)
    if "" in models:
        models = {**dict.fromkeys(COMPONENTS, models[""]), **models}
    return PeftScales(_by_any_name(models), tuple(unread))


def _by_any_name(models: Mapping[str, PeftScale]) -> dict[str, PeftScale]:
    """The scales of components, that of the diffusion model by whatever its modules' names start with."""
    main = models.get("transformer") or models.get("unet")
    if main is None:
        return {**models}
    alone = models.keys() <= {"transformer", "unet"}
    return {_DIFFUSION_MODEL: main, **models, **({"": main} if alone else {})}


def _positive(text: str) -> float | None:
    """The number, None if it is none above 0."""
    try:
        number = _finite(text)
    except (ValueError, OverflowError):
        return None
    return number if number > 0 else None


def _by_component(config: Mapping[str, Any]) -> PeftScales:
    """Split keys such as `unet.lora_alpha`, as diffusers writes them, by component."""
    if "lora_alpha" in config:
        return PeftScales({"": PeftScale.from_config(config)})
    models = {}
    for component in COMPONENTS:
        prefix = f"{component}."
        own = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
        if own:
            models[component] = PeftScale.from_config(own)
    return PeftScales(_by_any_name(models))
