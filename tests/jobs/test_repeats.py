"""What a prompt asks for more than once."""

from __future__ import annotations

import pytest

from lib_nplora.hosts.protocol import ShelfFile
from lib_nplora.jobs.repeats import Honoured, repeats
from lib_nplora.request.roles import parse_roles
from lib_nplora.request.tag import parse_tag

ALIASES = {"hund": "dog"}


def honoured(tag: str) -> Honoured:
    tags = [one.strip("<>").split(":")[1:] for one in tag.split(" ")]
    request = parse_roles(tags) if "role=" in tag else parse_tag(tags[0])
    sources = (*request.contents, *request.styles)
    files = {one.name: ShelfFile(one.name, ALIASES.get(one.name, one.name), "") for one in sources}
    applied = [(files[one.name].path, one.te, one.unet) for one in sources]
    return Honoured(tag, request, repr((applied, request.values.text(request.method.parameters[0]))), files)


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        (["<nplora:dog:ink>"], []),
        (["<nplora:dog:ink>", "<nplora:cat:oil>"], []),
        (["<nplora:dog:ink>"] * 2, [("<nplora:dog:ink>", "it stands twice, and counts once")]),
        (["<nplora:dog:ink>"] * 3, [("<nplora:dog:ink>", "it stands 3 times, and counts once")]),
        (
            ["<nplora:dog:ink>", "<nplora:dog:ink:0.5>", "<NPLORA:hund:ink>"],
            [("<nplora:dog:ink>", "it is the same as <nplora:dog:ink:0.5> and <NPLORA:hund:ink>, and counts once")],
        ),
        (
            ["<nplora:dog:ink:0>", "<nplora:hund:ink:2>"],
            [("<nplora:dog:ink:0>", "'dog' and 'ink' are also in <nplora:hund:ink:2>, so added twice")],
        ),
        (
            ["<nplora:dog:ink>", "<nplora:cat:ink>", "<nplora:fox:ink>"],
            [("<nplora:dog:ink>", "'ink' is also in <nplora:cat:ink> and <nplora:fox:ink>, so added 3 times")],
        ),
        (["<nplora:dog:ink>", "<nplora:cat:ink:s=0>"], []),
        (
            ["<nplora:dog:ink>", "<nplora:cat:ink:s=0,mid@1>"],
            [("<nplora:dog:ink>", "'ink' is also in <nplora:cat:ink:s=0,mid@1>, so added twice")],
        ),
        (
            ["<lora:dog:1:role=content> <lora:hund:1:role=content> <lora:ink:1:role=style>"],
            [
                (
                    "<lora:dog:1:role=content> <lora:hund:1:role=content> <lora:ink:1:role=style>",
                    "'dog' is more than once here, so added twice",
                )
            ],
        ),
    ],
)
def test_what_is_asked_for_more_than_once_is_told(tags, told):
    assert list(repeats([honoured(tag) for tag in tags])) == told
