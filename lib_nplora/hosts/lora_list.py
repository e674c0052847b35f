"""Names to files, by the tables that the built-in LoRA extension of A1111 and of every Forge keeps."""

from __future__ import annotations

import os
from typing import Any

from ..errors import FileError, NotFoundError, did_you_mean
from .protocol import LoraFile


class LoraList:
    """Looks LoRAs up in `networks`, the built-in extension's module."""

    def __init__(self, networks: Any) -> None:
        self._networks = networks
        self._stamps: dict[str, str] = {}

    def resolve(self, name: str) -> LoraFile:
        """See Host.resolve. A file that was added or replaced since the host last looked is found.

        Raises FileError if the host fails to hash it, as A1111 does where a header claims an absurd length.
        """
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
        try:
            record.read_hash()
        except Exception as error:
            raise FileError(f"'{record.name}' cannot be read: {error}") from error
        return LoraFile(record.name, path, stamp, record.shorthash or "", record, record.metadata or {})

    def _find(self, name: str) -> Any:
        networks = self._networks
        if name.lower() in networks.forbidden_network_aliases:
            return networks.available_networks.get(name)
        return networks.available_network_aliases.get(name)
