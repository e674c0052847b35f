"""Names to files, by the tables that the built-in LoRA extension of A1111 and of every Forge keeps."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from ..errors import FileError, MismatchError, NotFoundError, did_you_mean
from ..lowrank import LowRankDelta
from .protocol import LoraFile


class LoraList:
    """Looks LoRAs up in `networks`, the built-in extension's module."""

    def __init__(self, networks: Any) -> None:
        self._networks = networks
        self._stamps: dict[str, str] = {}

    def resolve(self, name: str) -> LoraFile:
        """See Host.resolve. A file that was added or replaced since the host last looked is found."""
        record = self._find(name)
        if record is None or not os.path.isfile(record.filename):
            self._networks.list_available_networks()
            record = self._find(name)
        if record is None:
            known = (*self._networks.available_networks, *self._networks.available_network_aliases)
            raise NotFoundError(f"there is no LoRA called '{name}'.{did_you_mean(name, known)}")
        path = record.filename
        stat = os.stat(path)
        stamp = f"{path}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"
        if self._stamps.get(path, stamp) != stamp:
            self._networks.list_available_networks()
            record = self._find(name)
        self._stamps[path] = stamp
        record.read_hash()
        return LoraFile(record.name, path, stamp, record.shorthash or "", record)

    def _find(self, name: str) -> Any:
        networks = self._networks
        if name.lower() in networks.forbidden_network_aliases:
            return networks.available_networks.get(name)
        return networks.available_network_aliases.get(name)


def module_names(tensors: Iterable[str]) -> set[str]:
    """The modules that these tensors of a LoRA file belong to, as the file spells them."""
    bundled = "bundle_emb."
    return {re.split(r"[._]lora[._]|\.lora_|\.alpha$", name)[0] for name in tensors if not name.startswith(bundled)}


def check_fits(file: LoraFile, fits: bool, layer: str, delta: LowRankDelta) -> None:
    """Raise MismatchError unless `delta` fits the model's `layer`, FileError unless its values are finite."""
    if not fits:
        raise MismatchError(
            f"'{file.name}' is made for another model than the one that is loaded "
            f"(layer {layer} does not take a {delta.shape[0]} x {delta.shape[1]} update)"
        )
    if not (delta.up.isfinite().all() and delta.down.isfinite().all()):
        raise FileError(f"'{file.name}' holds values that are not finite in layer {layer}: use another version of it")


def check_matched(file: LoraFile, matched: int, unmatched: int) -> None:
    """Raise MismatchError if too little of a file fits the model to call it a LoRA for that model."""
    if matched == 0 or unmatched > matched:
        raise MismatchError(
            f"'{file.name}' is made for another model than the one that is loaded, or in a format that this WebUI does "
            f"not read ({matched} of its {matched + unmatched} modules have a layer here)"
        )
