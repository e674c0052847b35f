"""What a file's header says of the model that its LoRA was trained on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

FIELDS = ("ss_base_model_version", "modelspec.architecture")
"""Those in which trainers name the model; the first that names one counts."""

_ADAPTER = "lora_adapter_metadata"
_OF_ADAPTER = r"(?:^|\.)base_model_name_or_path$"
"""Where diffusers puts PEFT's settings, and the one of them that names the model."""

CARRIED = (
    *("ss_base_model_version", "ss_v2", "ss_sd_model_name", "ss_sd_model_hash", "ss_new_sd_model_hash"),
    *("modelspec.architecture", "modelspec.prediction_type", "modelspec.resolution"),
)
"""Fields that are as true of a fusion as of the two that it was made of, if they agree."""

_NAMES = {
    r"sdv?1|stablediffusionv?1": "SD 1",
    r"sdv?2|stablediffusionv?2": "SD 2",
    r"sdxl|stablediffusionxl": "SDXL",
    r"sd3|stablediffusionv?3": "SD 3",
    r"flux2": "FLUX.2",
    r"flux3": "FLUX.3",
    r"flux": "Flux",
    r"chroma": "Chroma",
    r"lumina": "Lumina 2",
    r"qwen": "Qwen-Image",
    r"zimage": "Z-Image",
    r"wan": "Wan",
    r"krea2": "Krea 2",
    r"anima(?!te)": "Anima",
    r"ernie": "ERNIE-Image",
    r"hunyuanvideo": "HunyuanVideo",
    r"hunyuanimage": "HunyuanImage",
    r"hidream": "HiDream",
    r"ltx": "LTX",
    r"cosmos": "Cosmos",
    r"ideogram": "Ideogram",
    r"acestep": "ACE-Step",
    r"kolors": "Kolors",
    r"pixart": "PixArt",
    r"auraflow": "AuraFlow",
    r"omnigen": "OmniGen",
    r"pid(?![a-z])": "PiD",
}
"""How a model's name starts, without signs between -> the label of its family, whether or not more is known of it."""


def header_label(metadata: Mapping[str, object]) -> str | None:
    """The label of the family that the header names; None if it names none that was ever heard of."""
    for name in _told(metadata):
        bare = re.sub(r"[^a-z0-9]", "", name.lower())
        for pattern, label in _NAMES.items():
            if re.match(pattern, bare):
                return label
    return None


def header_name(metadata: Mapping[str, object]) -> str | None:
    """What the header calls the model: the label of its family, else as it stands there."""
    return header_label(metadata) or str(metadata.get(FIELDS[0]) or "") or None


def _told(metadata: Mapping[str, object]) -> Iterator[str]:
    for field in FIELDS:
        yield str(metadata.get(field, ""))
    try:
        settings = json.loads(str(metadata.get(_ADAPTER, "{}")))
    except (ValueError, RecursionError):
        return
    for field, value in settings.items() if isinstance(settings, dict) else ():
        if re.search(_OF_ADAPTER, field):
            yield str(value).rstrip("/\\").replace("\\", "/").rpartition("/")[2]


def carried(*headers: Mapping[str, str]) -> dict[str, str]:
    """Fields on the model of which those headers that have them say the same."""
    told = {field: {header[field] for header in headers if header.get(field)} for field in CARRIED}
    return {field: values.pop() for field, values in told.items() if len(values) == 1}
