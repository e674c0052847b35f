"""Names to files, by the tables that the built-in LoRA extension of A1111 and of every Forge keeps."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from ..errors import FileError, NotFoundError, did_you_mean_lora
from .namesakes import Namesakes
from .protocol import LoraEntry, ShelfFile

logger = logging.getLogger("nplora")

_listing = threading.Lock()
"""The host empties its tables before it fills them again, and the REST API has threads of its own."""


USED = (
    *("available_networks", "available_network_aliases", "available_network_hash_lookup"),
    *("forbidden_network_aliases", "list_available_networks", "shared"),
)
"""What the built-in extension's module must have."""


class LoraList:
    """The shelf of a host whose built-in extension's module, `networks`, has these tables."""

    def __init__(self, networks: Any) -> None:
        self._networks = networks
        self._stamps: dict[str, str] = {}
        self._namesakes = Namesakes(networks.shared)

    @property
    def folder(self) -> str:
        """See Shelf."""
        folder: str = self._networks.shared.cmd_opts.lora_dir
        return folder

    def names(self) -> list[str]:
        """See Shelf."""
        return [entry.name for entry in self.listed()]

    def listed(self) -> list[LoraEntry]:
        """See Shelf."""
        records = self._records()
        entries = [
            LoraEntry(r.name, r.alias, r.filename, r.shorthash or "", r.metadata or {}, self._namesakes.of(r, records))
            for r in records
        ]
        return sorted(entries, key=lambda entry: entry.name.lower())

    def refresh(self) -> None:
        """See Shelf."""
        with _listing:
            self._networks.list_available_networks()

    def resolve(self, name: str) -> ShelfFile:
        """See Shelf. A file that was added or replaced since the host last looked is found.

        Raises FileError if the host fails to hash it, as A1111 does where a header claims an absurd length.
        """
        record = self._find(name)
        if record is None or not os.path.isfile(record.filename):
            self.refresh()
            record = self._find(name)
        if record is None:
            known = (*self._networks.available_networks, *self._networks.available_network_aliases)
            raise NotFoundError(f"there is no LoRA called '{name}'.{did_you_mean_lora(name, known)}")
        path = record.filename
        stat = os.stat(path)
        stamp = f"{path}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"
        if self._stamps.get(path, stamp) != stamp:
            self.refresh()
            record = self._find(name)
        self._stamps[path] = stamp
        try:
            record.read_hash()
        except Exception as error:
            raise FileError(f"'{record.name}' cannot be read: {error}") from error
        namesakes = self._namesakes.of(record, self._records())
        return ShelfFile(record.name, path, stamp, record.shorthash or "", record, record.metadata or {}, namesakes)

    def named_by_hash(self, shorthash: str, seconds: float = 10.0) -> str | None:
        """See Shelf. A file that was added or renamed since the host last looked is found, too."""
        if not shorthash:
            return None
        if (name := self._hashed(shorthash)) is None:
            self.refresh()
            name = self._hashed(shorthash)
        return name or self._named_by_reading(shorthash, seconds)

    def _records(self) -> list[Any]:
        with _listing:
            return list(self._networks.available_networks.values())

    def _find(self, name: str) -> Any:
        networks = self._networks
        with _listing:
            if name.lower() in networks.forbidden_network_aliases:
                return networks.available_networks.get(name)
            return networks.available_network_aliases.get(name)

    def _hashed(self, shorthash: str) -> str | None:
        """The name of a file whose hash the host knows already."""
        with _listing:
            record = self._networks.available_network_hash_lookup.get(shorthash)
        return str(record.name) if record and os.path.isfile(record.filename) else None

    def _named_by_reading(self, shorthash: str, seconds: float) -> str | None:
        """Reads the files that the host has not hashed, the newest first, and begins none once the time is over."""
        over = time.monotonic() + seconds
        records = [record for record in self._records() if not record.hash]
        for record in sorted(records, key=lambda record: _modified(record.filename), reverse=True):
            if time.monotonic() >= over:
                logger.info("not all LoRAs could be read in %g s to find the one whose hash is %s", seconds, shorthash)
                break
            try:
                record.read_hash()
            except Exception as error:
                logger.debug("%s cannot be hashed: %s", record.filename, error)
            if record.shorthash == shorthash:
                return str(record.name)
        return None


def _modified(path: str) -> float:
    """Time of the last change, 0 for a file that is gone."""
    try:
        return os.path.getmtime(path)
    except OSError:
        return 0.0
