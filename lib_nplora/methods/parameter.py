"""A setting of a fusion method, declared once: everything that shows, reads or writes it asks the declaration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, Union

from ..errors import RequestError, did_you_mean
from ..layers.block import Block
from ..layers.by_block import ByBlock, read_by_block

T = TypeVar("T")


@dataclass(frozen=True)
class TextBox:
    """A line to type in."""


@dataclass(frozen=True)
class Choice:
    """A list to choose from.

    options
        As texts.
    free
        Whether others may be typed.
    """

    options: tuple[str, ...]
    free: bool = False


@dataclass(frozen=True)
class Strength:
    """A slider that is finer near 0, with a number beside it and a box for `hard`.

    most
        What the slider's end stands for.
    hard
        Name of the box among the panel's values.
    recipe
        What to try first, and what next.
    """

    most: float
    hard: str
    recipe: str = ""


@dataclass(frozen=True)
class Setting:
    """A line on a WebUI's settings page, the same for all pictures: not in the panel, and no key of a tag.

    info
        What the page says beside it.
    """

    info: str


Widget = Union[TextBox, Choice, Strength, Setting]  # noqa: UP007
"""How the panel shows a parameter, or the settings page."""


@dataclass(frozen=True)
class Parameter(Generic[T]):
    """What a method reads.

    name
        In the tag, on the command line, in the API, in a file's header. Methods that share a parameter differ in its
        default alone.
    parse
        Text -> value. Raises RequestError that names the parameter.
    default
        The value if none is given.
    words
        What it is, in a few words for the user.
    takes
        Which texts `parse` reads, in a few words for the user.
    format
        Value -> the text that `parse` reads; of a setting, what names it where something was made with it.
    by_block
        Whether it may have exceptions by block.
    positional
        Whether it may stand third in a tag, without its name, as one of them all may.
    widget
        How the panel shows it.
    label
        What the panel calls it; its name if empty.
    trials
        Values worth trying in a plot, as texts; empty for numbers to be typed.
    number
        The type of numbers that a plot is given, for ranges such as `1-5`; str for any text.
    infotext
        Under what a picture's parameters name it even where the tag leaves it at its default; empty for not at all.
    """

    name: str
    parse: Callable[[str], T]
    default: T
    words: str
    takes: str
    format: Callable[[T], str] = str
    by_block: bool = False
    positional: bool = False
    widget: Widget = TextBox()
    label: str = ""
    trials: tuple[str, ...] = ()
    number: type = str
    infotext: str = ""

    @property
    def is_setting(self) -> bool:
        """Whether it has its place on the settings page of a WebUI, and not in tags and panels."""
        return isinstance(self.widget, Setting)

    def defaulting(self, default: T) -> Parameter[T]:
        """The same parameter of a method with another default."""
        return replace(self, default=default)

    def read(self, text: str) -> T | ByBlock[T]:
        """The value that a text stands for, a ByBlock if there may be exceptions. Raises RequestError."""
        return read_by_block(text, self.parse, self.default) if self.by_block else self.parse(text)

    def write(self, value: Any) -> str:
        """The text that reads back as `value`."""
        return value.written(self.format) if isinstance(value, ByBlock) else self.format(value)

    def held(self, value: Any) -> Any:
        """`value` in the form that `read` gives it."""
        return ByBlock(value) if self.by_block and not isinstance(value, ByBlock) else value


@dataclass(frozen=True)
class Values:
    """The parameters of a method, each with the value that counts."""

    held: Mapping[str, Any]
    """Name -> value; a strength's has those of all blocks."""
    block: Block | None = None
    """Where in the model they count; None for the usual ones."""

    def __getitem__(self, parameter: Parameter[T]) -> T:
        value = self.held[parameter.name]
        found: T = value.at(self.block) if isinstance(value, ByBlock) else value
        return found

    def text(self, parameter: Parameter[Any]) -> str:
        """As in the tag, exceptions by block included."""
        return parameter.write(self.held[parameter.name])

    def at(self, block: Block) -> Values:
        """Those of a block."""
        return Values(self.held, block)


def check_choice(what: str, text: str, options: Iterable[str]) -> str:
    """The option that `text` is, whatever its case. Raises RequestError."""
    name = text.strip().lower()
    if name not in options:
        hint = did_you_mean(name, options) or f" Known: {', '.join(options)}."
        raise RequestError(f"there is no {what} '{name}'.{hint}")
    return name
