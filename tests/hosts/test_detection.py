"""How the host is told: by all that an adapter uses of it, whatever happens to another adapter on the way."""

from __future__ import annotations

import importlib
import logging
import pkgutil
import re
import sys
from pathlib import Path

import pytest

from lib_nplora import hosts
from lib_nplora.hosts import a1111, classic, detect_host, forge, reforge

from .standins.a1111 import A1111
from .standins.forge import Forge, Neo
from .standins.ldm_patched import Classic, ReForge

ADAPTERS = {"A1111": a1111, "Forge": forge, "reForge": reforge, "Forge Classic": classic}
MARKS = ("networks.module_types", "networks.load_lora_for_models")
"""What only one kind of host has, so that without it a host is no unknown kind of that one."""

OPTIONAL = {"networks.state_dict_prefix_replace", "networks.process_anima"}
"""What only Neo has, and an adapter asks for each time."""


def test_a_host_that_lacks_what_we_use_is_left_alone_and_told(driver, monkeypatch, caplog):
    used = ADAPTERS[driver.adapter_name].USED
    for module, names in used.items():
        for name in names:
            with monkeypatch.context() as patch:
                patch.delattr(sys.modules.get(module) or pkgutil.resolve_name(module), name)
                caplog.clear()
                assert detect_host() is None
            lines = [record.getMessage() for record in caplog.records]
            full = f"{module}.{name}"
            assert lines == [] if full in MARKS else len(lines) == 1 and f"this WebUI has no {full}" in lines[0]
    assert detect_host().name == driver.adapter_name


@pytest.mark.parametrize("error", [ImportError("no module named 'x'"), RuntimeError("two\nlines")])
def test_an_adapter_that_fails_leaves_the_next_its_turn(driver, monkeypatch, caplog, error):
    """Whichever hosts' adapters stand before this one's, each with one line."""

    def fail():
        raise error

    own = ADAPTERS[driver.adapter_name].__name__
    others = sorted({adapter.__name__ for adapter in ADAPTERS.values()} - {own})
    for name in others:
        monkeypatch.setattr(sys.modules[name], "detect", fail)
    with caplog.at_level(logging.WARNING):
        assert detect_host().name == driver.adapter_name
    said = " ".join(f"{type(error).__name__}: {error}".split())
    expected = [f"NP-LoRA cannot use {name} here: {said}" for name in others if name < own]
    assert [record.getMessage() for record in caplog.records] == expected


@pytest.mark.parametrize("driver", [Forge], indirect=True)
def test_an_adapter_that_cannot_be_imported_leaves_the_next_its_turn(driver, monkeypatch, caplog):
    import_module = importlib.import_module

    def fail(name):
        if name == "lib_nplora.hosts.a1111":
            raise ModuleNotFoundError("No module named 'something'")
        return import_module(name)

    monkeypatch.setattr(hosts.importlib, "import_module", fail)
    assert detect_host().name == "Forge"
    (record,) = caplog.records
    assert "No module named 'something'" in record.getMessage()


@pytest.mark.parametrize("driver", [A1111, Forge, Neo, ReForge, Classic], indirect=True)
def test_no_adapter_takes_another_host_for_a_spoilt_one_of_its_own(driver, caplog):
    with caplog.at_level(logging.WARNING):
        assert detect_host().name == driver.adapter_name
    assert not caplog.records


@pytest.mark.parametrize("driver", [Classic], indirect=True)
def test_a_newer_classic_is_left_alone_and_told(driver, monkeypatch, caplog):
    def load_lora(lora, known_keys, to_load, do_referential_load):
        """Later in 2025."""

    for module, name, value in (
        ("modules.shared", "cached_lora_hash", []),
        ("ldm_patched.modules.lora", "load_lora", load_lora),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules[module], name, value, raising=False)
            caplog.clear()
            assert detect_host() is None
        (record,) = caplog.records
        assert "newer" in record.getMessage()
    assert detect_host().name == "Forge Classic"


FILES = {
    "A1111": ("a1111/*.py",),
    "Forge": ("forge.py", "patching/model.py"),
    "reForge": ("reforge.py", "patching/ldm_patched.py", "patching/model.py"),
    "Forge Classic": ("classic.py", "patching/ldm_patched.py", "patching/model.py"),
}
"""Where each adapter touches its host."""


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_all_that_an_adapter_uses_is_asked_for(adapter):
    """Used is what stands behind the attributes in which adapters keep the hosts' modules, and what they import."""
    kept = {
        "_networks": "networks",
        "_network": "network",
        "_patching": "backend.patcher.lora",
        "_lora": "ldm_patched.modules.lora",
        "_lora_convert": "ldm_patched.modules.lora_convert",
        "_model_management": "ldm_patched.modules.model_management",
        "_utils": "ldm_patched.modules.utils",
        "sd_models": "modules.sd_models",
    }
    folder = Path(hosts.__file__).parent
    source = "\n".join(path.read_text(encoding="utf-8") for glob in FILES[adapter] for path in folder.glob(glob))
    names = {f"{kept[module]}.{name}" for module, name in re.findall(rf"\b({'|'.join(kept)})\.(\w+)\b", source)}
    for module, imported in re.findall(r"from (backend\.\w+) import (.+)", source):
        names |= {f"{module}.{name}" for name in imported.split(", ")}
    names |= {f"ldm_patched.modules.utils.{name}" for name in re.findall(r'put="(\w+)"', source)}
    used = {f"{module}.{name}" for module, all_names in ADAPTERS[adapter].USED.items() for name in all_names}
    assert len(names) > 5
    assert names - OPTIONAL <= used
