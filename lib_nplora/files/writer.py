"""Fused layers as a LoRA file that hosts read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..errors import FileError, Remedy
from ..layers.key import ModuleKey
from ..maths.delta import Delta
from ..maths.lowrank import LowRankDelta
from .atomic import replacing
from .hashing import kohya_hashes
from .models import Family, Spelling, labels, to_write
from .peft_scale import COMPONENTS
from .slot import BIAS
from .words import FileNames

WHOSE: Mapping[Spelling, str] = {"kohya": "kohya's", "diffusers": "diffusers'", "comfyui": "ComfyUI's"}
_KOHYA = ("lora_", "lycoris_")
"""How names begin that have underscores for dots, and kohya's tensors."""

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def write_lora(
    path: Path,
    layers: Iterable[tuple[ModuleKey, Delta]],
    dtype: str,
    family: Family | None,
    metadata: Mapping[str, str],
    spelling: Spelling | None = None,
    still_free: Callable[[], object] | None = None,
    file_names: FileNames | None = None,
    kept: FileNames | None = None,
) -> None:
    """Write `layers`, whose keys are canonical names, or words that `file_names` or `kept` knows.

    Factors become LoRA modules, in the usual spelling of the family unless `spelling` is another: in kohya's with one
    alpha, the highest rank, for the whole file, since diffusers misreads text encoders whose layers differ in alpha; in
    the others, whose names have dots, with none. Other deltas become `.diff`, and those of biases `.diff_b`.
    `dtype` is a name from DTYPES, `metadata` is added to what kohya's scripts write. The file appears once it is
    complete, or not at all; `still_free` is asked right before. Raises FileError, and whatever `layers` and
    `still_free` raise.
    """
    with replacing(path) as part:
        held = dict(layers)
        entries = file_names.entries(held) if file_names else _entries(held, family, spelling, kept)
        ranks = {name: delta.rank for name, delta in entries.items() if isinstance(delta, LowRankDelta)}
        in_kohya = {name: rank for name, rank in ranks.items() if name.startswith(_KOHYA)}
        alpha = max(in_kohya.values(), default=0)
        tensors: dict[str, Tensor] = {}
        held.clear()
        for name in list(entries):
            tensors |= _tensors(name, entries.pop(name), dtype, alpha if name in in_kohya else None)
        training = {
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(next(iter(ranks.values()))) if len(set(ranks.values())) == 1 else "Dynamic",
            "ss_network_alpha": str(alpha) if ranks.keys() == in_kohya.keys() else "Dynamic",
            "ss_output_name": path.stem,
            **(family.metadata if family else {}),
        }
        if settings := _peft_settings(ranks):
            metadata = {**metadata, "lora_adapter_metadata": json.dumps(settings)}
        save_file(tensors, part, training)
        save_file(tensors, part, {**training, **metadata, **kohya_hashes(part)})
        if still_free:
            still_free()


def _entries(
    layers: Mapping[ModuleKey, Delta], family: Family | None, spelling: Spelling | None, kept: FileNames | None
) -> dict[str, Delta]:
    """Layers by canonical names -> by the names of a family's spelling, or those that are kept. Raises FileError."""
    own = {key: delta for key, delta in layers.items() if kept and str(key.name).removesuffix(BIAS) in kept.layers}
    if kept and own:
        others = {key: delta for key, delta in layers.items() if key not in own}
        return kept.entries(own) | _entries(others, family, spelling, None)
    written = to_write([str(key.name) for key in layers], family)
    spelling = spelling or written.usual_spelling
    if spelling not in written.entries:
        known = [WHOSE[one] for one in written.entries]
        raise FileError(
            f"LoRAs for {labels('and', lacking=spelling)} are not written in {WHOSE[spelling]} spelling: choose "
            f"{' or '.join(known)}"
        )
    return written.entries[spelling](layers)


def _peft_settings(ranks: Mapping[str, int]) -> dict[str, object]:
    """PEFT's LoraConfig of each component, so that diffusers knows each module's rank, and gives it scale 1.

    PEFT finds modules by the end of their names: transformers 5 has no `text_model.` at their start.
    """
    settings: dict[str, object] = {}
    ranks = {name: rank for name, rank in ranks.items() if not name.startswith(_KOHYA)}
    for component in COMPONENTS:
        own = {
            name.removeprefix(f"{component}.").removeprefix("text_model."): rank
            for name, rank in ranks.items()
            if name.startswith(f"{component}.")
        }
        if not own:
            continue
        usual = max(set(own.values()), key=list(own.values()).count)
        others = {name: rank for name, rank in own.items() if rank != usual}
        settings |= {
            f"{component}.r": usual,
            f"{component}.lora_alpha": usual,
            f"{component}.rank_pattern": others,
            f"{component}.alpha_pattern": others,
            f"{component}.target_modules": list(own),
        }
    return settings


def _tensors(name: str, delta: Delta, dtype: str, alpha: int | None) -> dict[str, Tensor]:
    """The tensors of the module `name`: in kohya's spelling with an alpha, in PEFT's without."""
    if not isinstance(delta, LowRankDelta):
        role = "diff_b" if name.endswith(BIAS) else "diff"
        found = {f"{name.removesuffix(BIAS)}.{role}": delta.tensor()}
    elif alpha is None:
        up, down = delta.balanced().factors()
        found = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    else:
        up, down = delta.scaled(delta.rank / alpha).balanced().factors()
        found = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
    stored = {tensor: values.to(DTYPES[dtype]).contiguous() for tensor, values in found.items()}
    if not all(values.isfinite().all() for values in stored.values()):
        raise FileError(
            f"layer {name} holds values too large for {dtype}",
            Remedy(
                "choose --dtype bf16 or fp32, or a smaller weight",
                "choose the dtype bf16 or fp32, or a smaller weight",
                "choose bf16 or fp32, or a smaller weight",
            ),
        )
    if isinstance(delta, LowRankDelta) and alpha is not None:
        stored[f"{name}.alpha"] = torch.tensor(float(alpha))
    return stored
