"""LoRA files of one name in several folders, of which a host lists one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_ENDINGS = [".pt", ".ckpt", ".safetensors"]


class Namesakes:
    """Those in the folders from which the built-in LoRA extension of A1111 and of every Forge makes its list.

    shared
        The host's module, whose `walk_files` finds the files.
    """

    def __init__(self, shared: Any) -> None:
        self._shared = shared
        self._listed: Sequence[Any] = ()
        self._repeated: Mapping[str, Sequence[str]] = {}

    def of(self, record: Any, listed: Sequence[Any]) -> tuple[str, ...]:
        """Where a listed file and the others of its name lie, itself first; empty if there are no others.

        listed
            All that the host lists now: folders are looked into once a list.
        """
        if listed is not self._listed:
            if listed != self._listed:
                self._repeated = self._found()
            self._listed = listed
        others = [path for path in self._repeated.get(record.name, ()) if path != self._shown(record.filename)]
        return (self._shown(record.filename), *others) if others else ()

    def _found(self) -> Mapping[str, Sequence[str]]:
        """The stems that repeat, with their files."""
        by_stem: dict[str, dict[str, None]] = {}
        for path in self._files():
            by_stem.setdefault(Path(path).stem, {})[self._shown(path)] = None
        return {stem: list(paths) for stem, paths in by_stem.items() if len(paths) > 1}

    def _files(self) -> Iterator[str]:
        options = self._shared.cmd_opts
        more = getattr(options, "lyco_dir_backcompat", None), *getattr(options, "lora_dirs", ())
        for folder in dict.fromkeys((options.lora_dir, *filter(None, more))):
            yield from self._shared.walk_files(folder, allowed_extensions=_ENDINGS)

    def _shown(self, path: str) -> str:
        """A path, from the LoRA folder on if it is inside."""
        try:
            return Path(path).relative_to(self._shared.cmd_opts.lora_dir).as_posix()
        except ValueError:
            return path
