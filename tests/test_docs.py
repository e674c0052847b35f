"""What README.md and docs/ say of the code is what the code says, and whatever they point at is there."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import shlex
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest

from lib_nplora.command_line.options import parser, request_of, requests_of
from lib_nplora.layers.block import Block
from lib_nplora.layers.place import place_of
from lib_nplora.request.roles import has_role, parse_roles
from lib_nplora.request.tag import parse_tag
from lib_nplora.webui.fields import PanelState
from lib_nplora.webui.rest_bodies import FuseBody, InspectBody, with_parameters

from .docs import PAGES, PLACE, ROOT, TABLES, inserted

README = ROOT / "README.md"
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
ALL = "\n".join(TEXTS.values())

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@by_page
def test_the_tables_are_up_to_date(page):
    assert inserted(TEXTS[page]) == TEXTS[page], "run python -m tests.docs"


def test_every_table_stands_in_one_page():
    assert sorted(found[1] for text in TEXTS.values() for found in PLACE.finditer(text)) == sorted(TABLES)


@pytest.mark.parametrize(("model", "levels"), [("SD 1.5", 4), ("SDXL", 3)])
def test_the_table_of_blocks_has_those_of_a_unet(model: str, levels: int):
    """The blocks that names of diffusers stand in, and no others."""
    lines = (ROOT / "docs" / "tag.md").read_text(encoding="utf-8").split("| block |", 1)[1].splitlines()
    columns = [cell.strip() for cell in lines[0].strip("|").split("|")]
    told = set()
    for line in itertools.takewhile(lambda line: line.startswith("|"), lines[2:]):
        names, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if cells[columns.index(model)] and not names.startswith("`te"):
            told |= {str(Block.parse(name)) for name in re.findall("`([a-z0-9]+)`", names)}
    layers = [
        *("conv_in", "time_embedding_linear_1", "mid_block_resnets_0_conv1", "conv_out"),
        *(f"down_blocks_{level}_resnets_{layer}_conv1" for level in range(levels) for layer in range(2)),
        *(f"down_blocks_{level}_downsamplers_0_conv" for level in range(levels - 1)),
        *(f"up_blocks_{level}_resnets_{layer}_conv1" for level in range(levels) for layer in range(3)),
    ]
    assert told == {str(place_of(layer, "unet").block) for layer in layers}


# Links


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$|^ {4}.*?$|`[^`\n]+`", "", text, flags=re.S | re.M)


def links(text: str) -> list[str]:
    """What the links and pictures of a page point at, less what is not in this repository."""
    found = re.findall(r"\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"", without_code(text))
    return [target for pair in found for target in pair if target and not re.match(r"\w+:", target)]


def anchors(text: str) -> list[str]:
    """Those that GitHub makes of a page's headings."""
    made: list[str] = []
    seen: Counter[str] = Counter()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M), re.M):
        shown = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        made.append(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return made


def broken(page: Path) -> list[str]:
    """Links of a page that lead nowhere."""
    found = []
    for link in links(page.read_text(encoding="utf-8")):
        path, _, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        known = target.exists() and (not anchor or anchor in anchors(target.read_text(encoding="utf-8")))
        if not known:
            found.append(link)
    return found


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_link_leads_somewhere(page):
    assert broken(page) == []


def test_the_reading_of_links_misses_nothing(tmp_path):
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("# What to expect, honestly\n\n## `te` and [links](x)\n" + 3 * "\n## Again\n")
    page.write_text(
        """# Here
[a](other.md) [b](other.md#what-to-expect-honestly) [c](#here) ![d](gone.png "title") [e](other.md#gone) [f](#gone)
[g](https://example.org/gone) `[h](gone.md)` [i](other.md#te-and-links) [j](other.md#again-2) <img src="lost.png">

    [k](gone.md)

```
# No heading
[l](gone.md)
```
"""
    )
    assert broken(page) == ["gone.png", "other.md#gone", "#gone", "lost.png"]
    assert anchors(page.read_text()) == ["here"]


def test_the_readme_leads_to_every_page():
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in links(TEXTS[README])}
    assert set(PAGES) - {README} <= linked


# Examples


def examples(text: str) -> list[str]:
    """The lines that are to be typed, into a prompt or a terminal."""
    return re.findall(r"^ {4}(\S.*)", text, re.M)


def tags(name: str, text: str) -> list[list[str]]:
    """The pieces of each tag of that name, less those that stand for any."""
    return [found.split(":") for found in re.findall(rf"<{name}:([^<>]+)>", text) if "..." not in found]


def commands(text: str) -> list[list[str]]:
    """The words after `python -m lib_nplora` of every example."""
    found = [shlex.split(line) for line in examples(text) if "lib_nplora" in line]
    return [words[words.index("lib_nplora") + 1 :] for words in found]


def test_every_tag_can_be_read():
    found = tags("nplora", ALL)
    roles = [pieces for line in examples(ALL) if any(map(has_role, pieces := tags("lora", line)))]
    for items in found:
        parse_tag(items)
    for pieces in roles:
        parse_roles(pieces)
    assert len(found) >= 3
    assert len(roles) >= 2


def test_every_command_can_be_read():
    found = commands(ALL)
    for words in found:
        arguments = parser().parse_args(words)
        rows = {"generate": requests_of, "zip": lambda _: []}.get(words[0], lambda one: [[request_of(one)]])(arguments)
        for request in itertools.chain(*rows):
            request.check()
    assert len(found) >= 3


def test_every_module_that_is_to_be_run_is_there():
    found = set(re.findall(r"python -m ((?:tests|lab|lib_nplora)\b(?:\.\w+)*)", ALL))
    assert [module for module in found if not importlib.util.find_spec(module)] == []
    assert {"lib_nplora", "tests.docs"} <= found


def test_every_request_to_the_api_can_be_read():
    text = TEXTS[ROOT / "docs" / "programs.md"]
    (arguments,) = (json.loads(found) for found in re.findall(r"```json\n(.*?)```", text, re.S))
    assert PanelState.from_args(arguments["alwayson_scripts"]["NP-LoRA"]["args"]).request()
    bodies = {"fuse": FuseBody, "inspect": InspectBody}
    sent = dict(re.findall(r"```http\nPOST /nplora/v1/(\w+)\n\n(.*?)```", text, re.S))
    assert sent.keys() == bodies.keys()
    for path, body in sent.items():
        with_parameters(bodies[path])(**json.loads(body)).request().check()


def test_the_first_command_with_pytest_is_the_one_that_ci_runs():
    first = next(line for line in TEXTS[README].splitlines() if "python -m pytest" in line)
    assert first.startswith("    python3 -m venv .venv && ")
