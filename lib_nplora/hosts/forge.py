"""Forge and Forge Neo: fusions go in as patches of the model's UNet and text encoder.

The host keeps three sets of patchers on the model: the originals, those after its own LoRAs (`base` here), and those of
the picture at hand. A fusion is added to clones of the base, and the base is remembered, because the host does not
rebuild it while its own LoRAs stay the same. Reading a source asks the patch that the host's own `load_lora` returns,
for its factors if it is a plain LoRA, or else for what the host's own calculation makes of the original weight. Writing
a fusion hands an ordinary LoRA state dict to the same function, so that no dialect has to be known there; what has no
factors goes in as a `diff` patch, which every dialect takes.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import sys
import threading
from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..errors import FileError, HostError, MismatchError
from ..fusion.fused import FusedLora, Winners
from ..layers.key import ModuleKey, Part
from ..layers.weights import LoraWeights
from ..maths.delta import Delta, placed, total
from ..maths.dense import DenseDelta
from ..maths.lowrank import LowRankDelta, exact_math
from .collected import Collected, module_names
from .forge_merge import is_merged, replace_patches
from .lora_list import LoraList
from .protocol import LoraFile

STATE = "_nplora"


def detect() -> ForgeHost | None:
    """The adapter, if the built-in LoRA extension patches a UNet and a text encoder that can be cloned."""
    networks = sys.modules.get("networks")
    return ForgeHost(networks) if hasattr(networks, "load_lora_for_models") else None


@dataclass(frozen=True, eq=False)
class _Applied:
    """What was done to a model: `mine` stands where `base` stood.

    winners
        Who wins the contested layers of each fusion by now.
    number
        Tells it from others of the same fusions, whose contested layers the host may have merged at other winners.
    """

    base: Any
    mine: Any
    fused: Sequence[FusedLora]
    winners: dict[str, Winners]
    number: int

    @property
    def fingerprints(self) -> list[str]:
        return [lora.fingerprint for lora in self.fused]


class ForgeHost(LoraList):
    """See Host."""

    name = "Forge"

    def __init__(self, networks: Any) -> None:
        from backend.args import dynamic_args
        from backend.utils import load_torch_file
        from modules import sd_models

        super().__init__(networks)
        self._patcher = importlib.import_module("backend.patcher.lora")
        self._dynamic_args = dynamic_args
        self._read = load_torch_file
        self._model_data = sd_models.model_data
        self._count = itertools.count()
        self._tables: WeakKeyDictionary[Any, dict[str, Hashable]] = WeakKeyDictionary()

    @property
    def checkpoint(self) -> str | None:
        info = getattr(self._model_data.sd_model, "sd_checkpoint_info", None)
        return info.filename if info else None

    def model_token(self) -> Hashable:
        model = self._model_data.sd_model
        return id(model.forge_objects_original), model.sd_checkpoint_info.filename

    def load(self, file: LoraFile) -> LoraWeights:
        model = self._model_data.sd_model.forge_objects_original
        try:
            state = self._renamed(self._tensors(file.path), model)
        except Exception as error:
            raise FileError(f"'{file.name}' cannot be read: {error}") from error
        collected = Collected(file)
        unmatched: set[str] = set()
        with exact_math():
            for part, patcher in _parts(model):
                try:
                    patches, state = self._patcher.load_lora(state, self._names(part, patcher))
                except Exception as error:
                    raise FileError(f"'{file.name}' cannot be read: {type(error).__name__} {error}") from error
                layers = dict(_model(part, patcher).named_parameters())
                for target, patch in patches.items():
                    where = _Where.of(part, target)
                    layer = layers.get(where.key)
                    if layer is None or not self._collect(collected, where, patch, _shape(layer, where.rows)):
                        unmatched.add(str(target))
        return collected.weights(unmatched | module_names(state), self.model_token())

    def apply(self, fused: Sequence[FusedLora]) -> None:
        model = self._model_data.sd_model
        applied: _Applied | None = getattr(model, STATE, None)
        current = model.forge_objects_after_applying_lora
        base = applied.base if applied and current is applied.mine else current
        if applied is None or applied.base is not base or applied.fingerprints != [lora.fingerprint for lora in fused]:
            winners = {lora.fingerprint: lora.first_winners() for lora in fused}
            number = next(self._count)
            applied = _Applied(base, self._patched(base, fused, winners, number), fused, winners, number)
        setattr(model, STATE, applied)
        self._install(model, applied.mine)
        if not is_merged(applied.mine.unet):
            for lora in fused:
                self.swap(lora, lora.first_winners())

    def swap(self, fused: FusedLora, winners: Winners) -> None:
        model = self._model_data.sd_model
        applied: _Applied = getattr(model, STATE)
        standing = applied.winners[fused.fingerprint]
        layers = {key.layer for key, winner in winners.items() if standing[key] != winner}
        if layers:
            now = {**applied.winners, fused.fingerprint: winners}
            replace_patches(
                applied.mine.unet,
                self._patched(applied.base, applied.fused, now, applied.number, layers).unet,
                model.forge_objects.unet,
                {str(layer.name) for layer in layers},
            )
            applied.winners.update(now)

    def clear(self) -> None:
        model = self._model_data.sd_model
        applied: _Applied | None = getattr(model, STATE, None)
        if applied and model.forge_objects_after_applying_lora is applied.mine:
            self._install(model, applied.base)

    def _install(self, model: Any, objects: Any) -> None:
        """The host reads the second on its way to the picture, and the first while it encodes a hires prompt."""
        model.forge_objects.unet, model.forge_objects.clip = objects.unet, objects.clip
        model.forge_objects_after_applying_lora = objects

    def _patched(
        self,
        base: Any,
        fused: Sequence[FusedLora],
        winners: Mapping[str, Winners],
        number: int,
        layers: Container[ModuleKey] | None = None,
    ) -> Any:
        """A copy of `base` with these fusions, or with what they do to these layers."""
        if _get(self._dynamic_args, "nunchaku"):
            raise HostError("a Nunchaku model takes whole LoRA files only, so nothing can be fused into it")
        mine = base.shallow_copy()
        for lora in fused:
            for part, patcher in _parts(mine):
                deltas = {
                    key: lora.update(key, winners[lora.fingerprint])
                    for key in lora.deltas
                    if key.part == part and (layers is None or key.layer in layers)
                }
                if deltas:
                    filename = f"nplora://{lora.title}/{lora.fingerprint}" + (f"/{number}" if lora.schedule else "")
                    patched = self._with_patches(part, patcher, deltas, filename, self._online(base.unet))
                    setattr(mine, _ATTRIBUTE[part], patched)
        return mine

    def _with_patches(
        self, part: Part, patcher: Any, deltas: Mapping[ModuleKey, Delta], filename: str, online: bool
    ) -> Any:
        names = self._names(part, patcher)
        name_of = {target: name for name, target in names.items()}
        patches: dict[Hashable, Any] = {}
        state: dict[str, Tensor] = {}
        with exact_math():
            targets = _by_target(deltas, name_of, _model(part, patcher))
            for target, delta in targets.items():
                if isinstance(delta, DenseDelta):
                    patches[target] = ("diff", (delta.tensor(),))
                else:
                    state.update(_state_dict(name_of[target], delta.balanced()))
        if patches and online and hasattr(patcher, "_process_online_loras"):
            raise HostError("this model takes factors only while LoRAs are applied on the fly: switch that off")
        factors, left = self._patcher.load_lora(
            state, {name_of[target]: target for target in targets if target in name_of}
        )
        patches.update(factors)
        clone = patcher.clone()
        added = clone.add_patches(filename=filename, patches=patches, strength_patch=1.0, online_mode=online)
        if left or len(added) != len(patches):
            raise HostError(f"this WebUI took only {len(added)} of {len(patches)} fused layers, so none is applied")
        return clone

    # reading

    def _tensors(self, path: str) -> dict[str, Tensor]:
        """The file's. Of a pickle, by torch's reader of weights alone: Forge's own may run what code stands in it."""
        if path.lower().endswith(".safetensors"):
            return dict(self._read(path, safe_load=True))
        try:
            loaded = torch.serialization.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError("it is damaged, or a pickle that can run code: use a .safetensors version") from error
        return dict(loaded.get("state_dict", loaded))

    def _renamed(self, state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
        """The file's tensors by the names that Neo gives them before it looks for their layers."""
        if hasattr(self._networks, "state_dict_prefix_replace"):
            state = self._networks.state_dict_prefix_replace(state, {"lora_unet__": "lora_unet_"})
        if type(model.unet.model.diffusion_model).__name__ == "Anima" and hasattr(self._networks, "process_anima"):
            self._networks.process_anima(state)
        return state

    def _collect(self, collected: Collected, where: _Where, patch: Any, shape: torch.Size | None) -> bool:
        """Take one patch. False if the host's calculation fails at it, which leaves the layer alone.

        shape
            Of the layer's weight; None if it is quantised and does not tell.
        """
        key = ModuleKey(where.key, where.part, where.rows)
        factors = _factors(patch)
        if factors and where.change is None and not _is_padded(factors, shape):
            up, down, alpha, mid = factors
            collected.add_factors(key, shape, up, down, mid, lambda: _scale(alpha, down))
            return True

        def calculated() -> DenseDelta:
            return DenseDelta.of(self._update(collected.name, where, patch))

        if not self._is_calculable(collected.name, where, patch):
            return False
        delta = calculated()
        if not (delta.matrix.any() or _is_null(patch)):
            return False
        collected.add_dense(key, shape, delta, calculated)
        return True

    def _is_calculable(self, name: str, where: _Where, patch: Any) -> bool:
        """Whether the host's calculation works out, tried without values.

        Factors that fit no layer fail here, before their product takes all memory there is.
        """
        weight = torch.empty(self._original(where).shape, device="meta")
        try:
            after = self._merged(weight, where, patch)
        except Exception as error:
            return "meta" in str(error).lower()
        if after.shape != weight.shape:
            raise MismatchError(f"'{name}' would change the shape of layer {where.key}, which no fusion can")
        return True

    def _update(self, name: str, where: _Where, patch: Any) -> Tensor:
        """What the host's own calculation adds to the original weight.

        In float64, where the small difference of two large weights is exact, or in float32 if the host knows no other.
        """
        weight = self._original(where)
        problem: Exception | None = None
        for before in (weight.double(), weight):
            try:
                update: Tensor = self._merged(before, where, patch).clone() - before
                return update
            except Exception as error:
                problem = error
        raise FileError(f"this WebUI cannot calculate what '{name}' adds to layer {where.key}: {problem}") from problem

    def _merged(self, weight: Tensor, where: _Where, patch: Any) -> Tensor:
        """The weight with one patch, by the host. Raises what the host raises, or logs instead."""
        with _logged_errors() as errors:
            merged: Tensor = self._patcher.merge_lora_to_weight(
                [(1.0, patch, 1.0, None, where.change)], weight.clone(), where.key, computation_dtype=weight.dtype
            )
        if errors:
            raise RuntimeError(errors[0])
        return merged

    def _original(self, where: _Where) -> Tensor:
        """The weight, or the rows of it, as the checkpoint has it, in float32, whatever is merged into it now."""
        patcher = dict(_parts(self._model_data.sd_model.forge_objects_original))[where.part]
        model = _model(where.part, patcher)
        inner: Any = getattr(patcher, "patcher", patcher)
        backup = getattr(inner, "lora_loader", inner).backup.get(where.key)
        weight = getattr(backup, "weight", backup)
        if weight is None:
            weight = model.get_parameter(where.key)
        weight = _dequantised(weight, model.get_submodule(where.key.rpartition(".")[0]))
        if not weight.is_floating_point():
            raise HostError("this model's weights cannot be read as they are stored, so it takes plain LoRAs only")
        weight = weight.detach().to("cpu", torch.float32)
        return cast("Tensor", weight[slice(*where.rows)] if where.rows else weight)

    def _names(self, part: Part, patcher: Any) -> dict[str, Hashable]:
        """The host's own table from names in LoRA files to the model's keys. (Its default argument is shared.)"""
        model = _model(part, patcher)
        if model not in self._tables:
            make = self._patcher.model_lora_keys_unet if part == "unet" else self._patcher.model_lora_keys_clip
            self._tables[model] = make(model, {})
        return self._tables[model]

    def _online(self, unet: Any) -> bool:
        """Whether to patch at each forward, as the host decides: by its switch, in Forge for quantised weights only."""
        asked = bool(_get(self._dynamic_args, "online_lora"))
        if hasattr(unet, "use_online_lora"):
            return asked
        plain = (torch.float32, torch.float16, torch.bfloat16)
        return asked and getattr(unet.model, "storage_dtype", torch.float32) not in plain


_ATTRIBUTE: dict[Part, str] = {"unet": "unet", "te": "clip"}


def _parts(objects: Any) -> list[tuple[Part, Any]]:
    """The patchers of a model that has them, UNet first as in the host."""
    return [(part, getattr(objects, name)) for part, name in _ATTRIBUTE.items() if getattr(objects, name) is not None]


def _model(part: Part, patcher: Any) -> Any:
    return patcher.model if part == "unet" else patcher.cond_stage_model


def _get(dynamic_args: Any, name: str) -> Any:
    """Forge keeps a dict, Neo an object."""
    return dynamic_args.get(name) if isinstance(dynamic_args, dict) else getattr(dynamic_args, name, None)


@dataclass(frozen=True)
class _Where:
    """Where a patch goes.

    part, key
        Of the parameter in the model.
    rows
        (start, stop) of its rows, None for all.
    change
        What the host does to the update before it adds it, such as swapping halves.
    """

    part: Part
    key: str
    rows: tuple[int, int] | None = None
    change: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(cls, part: Part, target: Any) -> _Where:
        """From a target of the host's: key, or (key, (dimension, start, length) or None[, change])."""
        if isinstance(target, str):
            return cls(part, target)
        key, offset, *change = target
        if offset and offset[0] != 0:
            raise HostError(f"this WebUI patches columns of layer {key}, which no fusion can")
        rows = (offset[1], offset[1] + offset[2]) if offset else None
        return cls(part, key, rows, change[0] if change else None)


def _by_target(deltas: Mapping[ModuleKey, Delta], name_of: Mapping[Hashable, str], model: Any) -> dict[Hashable, Delta]:
    """The deltas by the host's targets; factors for a slice that has no name, as an update of the whole layer."""
    found: dict[Hashable, Delta] = {}
    for key, delta in deltas.items():
        target: Hashable = key.name
        if key.rows:
            start, stop = key.rows
            target = key.name, (0, start, stop - start)
            if isinstance(delta, LowRankDelta) and target not in name_of:
                target, delta = key.name, placed(delta, start, model.get_parameter(key.name).shape[0])
        found[target] = total([found[target], delta]) if target in found else delta
    return found


def _factors(patch: Any) -> tuple[Tensor, Tensor, Any, Tensor | None] | None:
    """(up, down, alpha, mid) of a plain LoRA patch: a tuple (kind, fields) in Forge, an adapter object in Neo."""
    kind, fields = (patch.name, patch.weights) if hasattr(patch, "weights") else (patch[0], patch[-1])
    if kind != "lora" or any(field is not None for field in fields[4:]):
        return None
    return tuple(fields[:4])


@contextmanager
def _logged_errors() -> Iterator[list[str]]:
    """What Neo's patches log on the root logger instead of raising it, kept from the console."""
    found: list[str] = []
    thread = threading.get_ident()

    def collect(record: logging.LogRecord) -> bool:
        ours = record.levelno >= logging.ERROR and record.thread == thread
        if ours:
            found.append(record.getMessage())
        return not ours

    root = logging.getLogger()
    root.addFilter(collect)
    try:
        yield found
    finally:
        root.removeFilter(collect)


def _is_null(patch: Any) -> bool:
    """Whether a patch means no change, because its alpha or one of its factors is 0."""
    fields = patch.weights if hasattr(patch, "weights") else patch[-1]
    return any(
        not field.any() if isinstance(field, Tensor) else field == 0
        for field in fields
        if isinstance(field, Tensor | float | int)
    )


def _is_padded(factors: tuple[Tensor, Tensor, Any, Tensor | None], shape: torch.Size | None) -> bool:
    """Whether the layer has more inputs than the LoRA knows, as in models that are made to fill or to be controlled."""
    up, down, _, mid = factors
    width = down.shape[1:2].numel() * (down if mid is None else mid).shape[2:].numel()
    return shape is not None and up.shape[0] == shape[0] and width < shape[1:].numel()


def _scale(alpha: float | None, down: Tensor) -> float:
    return 1.0 if alpha is None else float(alpha) / down.shape[0]


def _shape(weight: Tensor, rows: tuple[int, int] | None) -> torch.Size | None:
    """Of the weight, or of these rows; None if it is packed."""
    if not weight.is_floating_point() and getattr(weight, "gguf_cls", None) is None:
        return None
    return torch.Size((rows[1] - rows[0], *weight.shape[1:])) if rows else weight.shape


def _dequantised(weight: Any, layer: Any) -> Any:
    """By the host's own functions."""
    if hasattr(weight, "bnb_quantized"):
        return importlib.import_module("backend.operations_bnb").functional_dequantize_4bit(weight)
    if getattr(weight, "gguf_cls", None) is not None:
        return importlib.import_module("backend.operations_gguf").dequantize_tensor(weight)
    return layer.convert_weight(weight) if hasattr(layer, "convert_weight") else weight


def _state_dict(name: str, delta: LowRankDelta) -> dict[str, Tensor]:
    up, down = delta.factors()
    return {
        f"{name}.lora_up.weight": up,
        f"{name}.lora_down.weight": down,
        f"{name}.alpha": torch.tensor(float(delta.rank)),
    }
