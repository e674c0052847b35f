"""From a host's parsed prompt to requests, and back to what the host shall still do."""

from __future__ import annotations

from types import SimpleNamespace

from lib_nplora.errors import RequestError
from lib_nplora.jobs.session import Plan
from lib_nplora.request.request import FusionRequest, Source
from lib_nplora.webui.prompt import left_to_host, plain, read


def parsed(**tags: list[str]) -> dict[str, list[SimpleNamespace]]:
    return {name: [SimpleNamespace(items=text.split(":")) for text in texts] for name, texts in tags.items()}


def plan_of(*honoured) -> Plan:
    return Plan(honoured, dict.fromkeys(honoured), [], [], {})


def test_a_prompt_without_us_asks_nothing():
    data = parsed(lora=["hat:1"], hypernet=["x:1"])
    assert read(data) == []
    assert read({}) == []
    assert left_to_host(data, plan_of()) is data


def test_every_tag_is_a_request_and_all_roles_are_one():
    one, two, roles = read(
        parsed(
            nplora=["dog:vangogh:1", "cat"],
            lora=["hat:0.5", "dog:0.8:role=content"],
            lyco=["vangogh:1:role=style:mu=2"],
        )
    )
    assert one.tag == "<nplora:dog:vangogh:1>"
    assert one.request == FusionRequest.of((Source("dog"),), (Source("vangogh"),), mu=1)
    assert two.tag == "<nplora:cat>"
    assert isinstance(two.request, RequestError)
    assert roles.tag == "<lora:dog:0.8:role=content> <lyco:vangogh:1:role=style:mu=2>"
    assert roles.by_role
    assert roles.request == FusionRequest.of((Source("dog", 0.8, 0.8),), (Source("vangogh"),), mu=2)


def test_only_honoured_roles_are_taken_from_the_host():
    data = parsed(nplora=["a:b"], lora=["hat:0.5", "dog:1:role=content", "vangogh:1:role=style"])
    tag, roles = read(data)
    assert left_to_host(data, plan_of(tag)) is data
    left = left_to_host(data, plan_of(roles))
    assert [params.items for params in left["lora"]] == [["hat", "0.5"]]
    assert left["nplora"] == data["nplora"]
    assert len(data["lora"]) == 3


def test_pieces_that_are_no_text():
    """The host appends its own LoRA setting with the weight as a number."""
    data = {"lora": [SimpleNamespace(items=["hat", 0.5])]}
    assert read(data) == []


def test_ordinary_tags_are_those_without_a_role():
    data = parsed(nplora=["a:b"], lora=["hat:0.5", "dog:1:role=content", "x"], lyco=["y:1"], hypernet=["z"])
    assert plain(data) == ["hat", "x", "y"]
