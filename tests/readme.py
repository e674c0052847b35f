"""The table of methods for the README, as Markdown."""

from __future__ import annotations

from lib_nplora.methods.method import Method
from lib_nplora.methods.table import methods, parameters

START, END = "<!-- methods: python -m tests.readme -->", "<!-- end of methods -->"
"""Between these lines of the README stands what `markdown` makes."""


def markdown() -> str:
    """Both tables: what each method does and reads, and what each parameter is."""
    rows = ["| `method=` | what it does | reads | source |", "|---|---|---|---|"]
    rows += [f"| `{one.name}` | {one.told} | {_reads(one)} | {one.source} |" for one in methods().values()]
    rows += ["", "| `key=` | what it is | takes |", "|---|---|---|"]
    for one in parameters().values():
        by_block = "; [by block](#by-block)" if one.by_block else ""
        rows.append(f"| `{one.name}` | {one.words} | {one.takes}{by_block} |")
    return "\n".join(rows)


def _reads(method: Method) -> str:
    return ", ".join(f"`{one.name}` {one.write(one.default)}" for one in method.parameters)


def inserted(readme: str) -> str:
    """The README with tables that are up to date. Raises ValueError if it has no place for them."""
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"there is no {START} or no {END}")
    return f"{before}{START}\n\n{markdown()}\n\n{END}{after}"


if __name__ == "__main__":
    from pathlib import Path

    path = Path("README.md")
    path.write_text(inserted(path.read_text(encoding="utf-8")), encoding="utf-8")
