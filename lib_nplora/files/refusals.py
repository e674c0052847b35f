"""Why a file cannot be fused: what was found in it, and what else would work."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import FileError, MismatchError, Remedy
from .tensor_file import TensorFile

TAG = Remedy(
    "where a WebUI loads it, <nplora:...> in a prompt fuses it",
    "where the WebUI loads it, <nplora:...> in a prompt fuses it",
)
"""A tag reads files as the WebUI does, which knows sorts and models that are not known here."""

_SHOWN = 160
"""Signs of a name; there are files whose names are there to do harm."""
_HEADER_FIELDS = ("modelspec.architecture", "ss_base_model_version", "ss_network_module")


def strange(file: TensorFile, problem: str) -> FileError:
    """A sound file of a sort that is not known here. `problem` goes on after the file's name."""
    told = ", ".join(f"{field} {short(file.metadata[field])}" for field in _HEADER_FIELDS if file.metadata.get(field))
    return FileError(f"'{file.path.name}' {problem}{f' (its header says {told})' if told else ''}", TAG)


def two_models(names: Sequence[str], families: Sequence[str]) -> MismatchError:
    """Two LoRAs that are for different models."""
    return MismatchError(
        f"'{names[0]}' is made for {families[0]} and '{names[1]}' for {families[1]}: choose two LoRAs for the same "
        "model"
    )


def described(file: TensorFile, tensors: Sequence[str]) -> str:
    """Tensors in words: the first ones' names and shapes, and how many more there are."""
    first = [f"{short(tensor)} {file.shapes[tensor]}" for tensor in tensors[:2]]
    more = len(tensors) - len(first)
    return " and ".join(first) + (f" and {more} more tensors" if more else "")


def short(text: str) -> str:
    """The text, cut if it is of no sensible length."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
