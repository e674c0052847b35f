"""What a soak makes of its jobs. The soak itself is a command: `python -m tests.real_hosts.soak`."""

from __future__ import annotations

import pytest

from . import soak

HOSTS = """Traceback (most recent call last):
  File "/hosts/forge/extensions/nplora/lib_nplora/webui/extra_network.py", line 70, in activate
    result = original(p, data)
  File "/hosts/forge/modules/extra_networks.py", line 1, in activate
    raise ValueError("theirs")
ValueError: theirs
"""
OURS = """Traceback (most recent call last):
  File "/hosts/forge/modules/scripts.py", line 1, in process
    script.process(p)
  File "/hosts/forge/extensions/nplora/lib_nplora/webui/tagging.py", line 40, in write
    raise ValueError("ours")
ValueError: ours
"""
UNFORESEEN = "NP-LoRA: <nplora:a:b>: KeyError: 1 (details are in the console)"


def test_exceptions_of_ours_are_told_from_the_hosts():
    log = f"Startup time: 1 s\n{HOSTS}*** Error\n{OURS}100%|###|\n{UNFORESEEN}\n"
    assert soak.exceptions_of_ours(log) == [OURS.rstrip("\n"), UNFORESEEN]
    assert soak.exceptions_of_ours(f"{HOSTS}all is well\n") == []


def rows(resident: list[float]) -> list[dict]:
    return [
        {"number": number, "kind": "tag", "answer": "a picture", "seconds": 1.0, "resident_mib": mib}
        for number, mib in enumerate(resident)
    ]


SAME = {"picture": True, "weights": True}


@pytest.mark.parametrize(
    ("resident", "left", "problems", "passed"),
    [
        ([500.0, *range(600, 699), *[1000.0] * 900], SAME, [], True),
        ([500.0] * 50, SAME, [], True),
        ([*range(500, 1500)], SAME, [], False),
        ([500.0] * 200, {**SAME, "weights": False}, [], False),
        ([500.0] * 200, SAME, ["job 1: no"], False),
    ],
    ids=["flat after the first hundred", "few", "growing", "other weights", "a problem"],
)
def test_the_verdict(resident, left, problems, passed):
    assert soak.verdict(rows(resident), left, problems)["passed"] is passed


def test_memory_is_drawn(tmp_path):
    soak.draw_memory(rows([500.0, 600.0]), tmp_path / "memory.png")
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")


def test_every_kind_of_job_can_be_done():
    assert sum(soak.SHARES.values()) == 100
    assert all(callable(getattr(soak.Soak, kind)) for kind in soak.SHARES)
