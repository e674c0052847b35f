"""Two LoRA files, read so that their layers meet: by the words that both use, else by canonical names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import FileError, MismatchError
from . import names, text_encoders
from .base import Weights
from .models import Family, Spelling, agreed, in_words, possible, unets
from .models.family import PREFIX
from .opened import Opened, open_lora
from .reader import LoraFile, as_base, read_opened, text_of_others
from .refusals import TAG, short, two_models
from .words import FileNames


@dataclass(frozen=True, eq=False)
class ReadPair:
    """Two files whose layers have names in common.

    family
        The model family that both are made for, None if nothing tells.
    file_names
        How a file with the layers of both is to spell them, which is how these do; None if they differ in that, or if
        the family's own spelling is the better one.
    kept
        How layers are to be named of whose names alone is known what they are: those of a language model.
    doubt
        What is to be said of the model, if the family is not known.
    """

    content: LoraFile
    style: LoraFile
    base: Weights | None
    family: Family | None
    file_names: FileNames | None
    kept: FileNames
    doubt: str | None


def read_pair(content: Path, style: Path, base: Path | None = None, spelling: Spelling | None = None) -> ReadPair:
    """Open the files of a pair.

    base
        The model's file, which is opened only if a module depends on it.
    spelling
        In which the layers are to be written; None for that of the files.

    Raises FileError, and MismatchError if they name no model that they could both be made for.
    """
    pair = open_lora(content), open_lora(style)
    _check_headers(*pair)
    families = agreed(*(opened.evidence for opened in pair))
    _check_families(pair, families)
    family = families[0] or families[1]
    model = _model(pair, base, family)
    same = spelling is None and (families[0] is families[1] or None in families) and _spell_alike(*pair, family)
    if not same and family is None:
        _check_known(*pair, spelling)
    if same or (family and family.is_apart):
        families = family, family
    one, other = (read_opened(opened, model, own, by_words=same) for opened, own in zip(pair, families))
    file_names = pair[0].file_names.beside(pair[1].file_names) if same else None
    known = one.family or other.family
    kept, also = (FileNames.of(text_of_others(opened, own)) for opened, own in zip(pair, families))
    return ReadPair(one, other, model, known, file_names, kept.beside(also), None if known else _doubt(*pair))


def _model(pair: tuple[Opened, Opened], base: Path | None, family: Family | None) -> Weights | None:
    """The model, if a module depends on it. Raises FileError, as it does for a model of unknown names."""
    for opened in pair:
        if opened.needs_base and family is None and opened.translated(None) is None:
            raise FileError(
                f"'{opened.file.path.name}' holds modules that need the weights of the model that they were made for, "
                "and the names of that are not known here",
                TAG,
            )
    return as_base(base, family) if any(opened.needs_base for opened in pair) else None


def _check_headers(content: Opened, style: Opened) -> None:
    """Raises MismatchError if the headers name two families."""
    if content.header and style.header and content.header != style.header:
        raise MismatchError(
            f"the header of '{content.file.path.name}' names {content.header} and that of '{style.file.path.name}' "
            f"{style.header}: choose two LoRAs for the same model"
        )


def _check_families(pair: tuple[Opened, Opened], families: tuple[Family | None, Family | None]) -> None:
    """Raises MismatchError if layers and headers tell of two families."""
    one, other = (
        [family.label] if family else [opened.header] if opened.header else possible(opened.evidence)
        for opened, family in zip(pair, families)
    )
    if one and other and not {*one} & {*other}:
        raise two_models([opened.file.path.name for opened in pair], (in_words(one), in_words(other)))


def _doubt(content: Opened, style: Opened) -> str | None:
    """What is to be said of the model of files that do not tell their family; None if it makes no difference."""
    if labels := possible(content.evidence, style.evidence):
        return f"nothing but names of layers tells the model, which may be {in_words(labels)}: no header will name it"
    if content.translated(None) and style.translated(None):
        return None
    return "these LoRAs are made for a model that is not known here: what they name alike is fused, as it stands"


def _check_known(content: Opened, style: Opened, spelling: Spelling | None) -> None:
    """Raises FileError if layers would have to be translated of which no model is known."""
    for opened in (content, style):
        if opened.translated(None) is not None:
            continue
        module = next(module for module in opened.words if names.slot_of(module) is None)
        if spelling:
            raise FileError(
                f"'{opened.file.path.name}' is for a model that is not known here ({short(module)}), so it can be "
                "written only as its files spell it: leave the spelling out"
            )
        other = style if opened is content else content
        raise FileError(
            f"'{opened.file.path.name}' is for a model that is not known here (it holds layer {short(module)}), and "
            f"'{other.file.path.name}' names no layer by the same words",
            TAG,
        )


def _spell_alike(content: Opened, style: Opened, family: Family | None) -> bool:
    """Whether all layers that both files hold have the same words in them, and may be written so."""
    if not (content.is_plain and style.is_plain) or (family and not family.keeps_words):
        return False
    if family is None and _is_in_unet(content) and _is_in_unet(style):
        return False
    one, other = content.translated(family), style.translated(family)
    if one is None or other is None:
        return bool({*content.words.values()} & {*style.words.values()})
    first, second = _by_layer(one), _by_layer(other)
    return all(first[layer] == second[layer] for layer in first.keys() & second.keys())


def _by_layer(translated: Mapping[str, str]) -> dict[str, set[str]]:
    """Canonical name -> the words of the modules that hold the layer or some of its rows."""
    found: dict[str, set[str]] = {}
    for words, layer in translated.items():
        found.setdefault(layer, set()).add(words)
    return found


def _is_in_unet(opened: Opened) -> bool:
    """Whether all layers are a UNet's or its text encoders', which every host reads in one spelling."""
    slots = opened.translated(None)
    return slots is not None and all(
        text_encoders.is_text(layer) or unets.slot_of(layer.removeprefix(PREFIX)) for layer in slots.values()
    )
