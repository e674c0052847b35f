"""The tables in README.md and docs/ that are made from the code, as Markdown."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from lib_nplora.methods.method import Method
from lib_nplora.methods.table import methods, parameters
from lib_nplora.webui.fields import by_block, fields

ROOT = Path(__file__).parents[1]

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))


def _short_methods() -> str:
    """What each method does, in a few words."""
    return _table(
        ("`method=`", "what it does", "source"),
        ((f"`{one.name}`", one.about, one.source) for one in methods().values()),
    )


def _methods() -> str:
    """What each method does and reads."""
    return _table(
        ("`method=`", "what it does", "reads", "source"),
        ((f"`{one.name}`", one.told, _reads(one), one.source) for one in methods().values()),
    )


def _observing() -> str:
    """What each method that looks at the model does and reads."""
    return _table(
        ("`method=`", "what it does", "reads", "source"),
        (
            (f"`{one.name}`", one.told, _reads(one), one.source)
            for one in methods(observing=True).values()
            if one.observes
        ),
    )


def _reads(method: Method) -> str:
    return ", ".join(f"`{one.name}` {one.write(one.default) or 'none'}" for one in method.parameters)


def _settings() -> str:
    """What each parameter of any method is."""
    return _table(
        ("`key=`", "what it is", "takes"),
        (
            (f"`{one.name}`", one.words, one.takes + ("; [by block](#by-block)" if one.by_block else ""))
            for one in parameters().values()
        ),
    )


_BY_BLOCK = "exceptions to `{}` by block, such as `mid@2,out@0`"

_ARGUMENTS = {
    "enabled": "whether the panel adds its tag to the prompt",
    "content": "name of the content LoRA",
    "style": "name of the style LoRA",
    "hard": "whether `mu` is hard, whatever number it has",
    "content_weight": "weight of the content LoRA",
    "style_weight": "weight of the style LoRA",
    "method": "how to fuse",
    "te": "whether the text encoder takes part",
    "content_by_block": _BY_BLOCK.format("content_weight"),
    "style_by_block": _BY_BLOCK.format("style_weight"),
}
"""What the script's arguments are that stand for no parameter of a method."""


def _arguments() -> str:
    """What the script takes, in the order of the positions."""
    words = {**_ARGUMENTS, **{one.name: one.words for one in parameters().values()}}
    words |= {by_block(one.name): _BY_BLOCK.format(one.name) for one in parameters().values() if one.by_block}
    return _table(
        ("", "name", "default", "what it is"),
        (
            (str(i), f"`{name}`", f"`{json.dumps(default)}`", words[name] + _if_empty(name, default))
            for i, (name, default) in enumerate(fields().items())
        ),
    )


def _if_empty(name: str, default: object) -> str:
    return "; text, empty for the method's own" if name in parameters() and default == "" else ""


def _folders() -> str:
    """What stands in each folder of the package, by its own first sentence."""
    found = sorted((ROOT / "lib_nplora").glob("*/__init__.py"))
    told = {file.parent.name: ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "" for file in found}
    return _table(("", ""), ((f"`{name}/`", text.split(". ")[0].rstrip(".")) for name, text in told.items()))


TABLES: Mapping[str, Callable[[], str]] = {
    "methods in short": _short_methods,
    "methods": _methods,
    "methods that look": _observing,
    "settings": _settings,
    "arguments": _arguments,
    "folders": _folders,
}
"""The name that stands around a table -> how it is made."""

PLACE = re.compile(r"<!-- ([\w ]+): python -m tests\.docs -->\n.*?\n<!-- end of \1 -->", re.S)
"""Where a table stands in a page."""


def inserted(page: str) -> str:
    """A page with tables that are up to date. Raises KeyError for one that is not known."""

    def made(found: re.Match[str]) -> str:
        name = found[1]
        return f"<!-- {name}: python -m tests.docs -->\n\n{TABLES[name]()}\n\n<!-- end of {name} -->"

    return PLACE.sub(made, page)


if __name__ == "__main__":
    for file in PAGES:
        file.write_text(inserted(file.read_text(encoding="utf-8")), encoding="utf-8")
