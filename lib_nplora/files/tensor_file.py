"""A .safetensors file, opened, whose every failure is a FileError that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import FileError, did_you_mean

_PICKLES = (".pt", ".pth", ".ckpt", ".bin")
_OTHERS = {".gguf": "GGUF"}


class TensorFile:
    """Holds the file open; reads a tensor each time it is asked for one, and keeps none."""

    def __init__(self, path: Path) -> None:
        """Raises FileError if it cannot be opened."""
        self.path = path
        self._file = _open(path)
        try:
            self.names: tuple[str, ...] = tuple(self._file.keys())
            self.metadata: dict[str, str] = self._file.metadata() or {}
            headers = {name: self._file.get_slice(name) for name in self.names}
            self.shapes: dict[str, tuple[int, ...]] = {
                name: tuple(header.get_shape()) for name, header in headers.items()
            }
            """Shapes by tensor."""
            self.dtypes: dict[str, str] = {name: str(header.get_dtype()) for name, header in headers.items()}
            """Number formats by tensor, as the file format calls them: F16, BF16, F8_E4M3, I64, ..."""
        except _FAILURES as error:
            raise self._damaged(error) from error

    def read(self, name: str) -> Tensor:
        """The tensor as it is. Raises FileError."""
        try:
            return self._get(name)
        except _FAILURES as error:
            if isinstance(error, ValueError) and self._can_be_read(name):
                raise KeyboardInterrupt from error
            raise self._damaged(error) from error

    def _can_be_read(self, name: str) -> bool:
        """Asked after a ValueError: a Ctrl+C while torch makes a tensor comes out as one."""
        try:
            self._get(name)
            return True
        except _FAILURES:
            return False

    def _get(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def _damaged(self, error: Exception) -> FileError:
        return FileError(f"'{self.path.name}' cannot be read ({error}): download or save it again")


_FAILURES = (SafetensorError, OSError, RuntimeError, AttributeError, TypeError, ValueError, KeyError)


def _open(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise FileError(f"'{path.name}' is of a kind that can run code when opened: convert it to .safetensors first")
    if suffix in _OTHERS:
        raise FileError(f"'{path.name}' is a {_OTHERS[suffix]} file: use the .safetensors version of it")
    if path.is_dir():
        inside = [f"such as '{file}'" for file in sorted(path.glob("*.safetensors"))[:1]]
        raise FileError(f"'{path}' is a folder: {', '.join(['name a .safetensors file', *inside])}")
    if not path.is_file():
        siblings = (file.name for file in path.parent.glob("*.safetensors"))
        raise FileError(f"there is no file '{path}'.{did_you_mean(path.name, siblings)}")
    try:
        return safe_open(path, framework="pt")
    except _FAILURES as error:
        raise FileError(
            f"'{path.name}' cannot be opened as a .safetensors file ({error}): download or save it again"
        ) from error
