"""Imports point one way, and what a host must not lose time on is not imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lib_nplora"
FILES = sorted(PACKAGE.rglob("*.py"))

ROOMS = {
    "": set(),
    "errors": set(),
    "maths": {"errors", "maths"},
    "layers": {"errors", "layers", "maths"},
    "methods": {"errors", "layers", "maths", "methods"},
    "methods.rar": {"errors", "files", "layers", "maths", "methods"},
    "request": {"errors", "layers", "maths.rank_rule", "methods", "request"},
    "fusion": {"errors", "fusion", "layers", "maths", "methods", "request"},
    "files": {"errors", "files", "layers", "maths"},
    "hosts": {"errors", "fusion.fused", "hosts", "layers", "maths"},
    "hosts.diffusers": {"errors", "files", "fusion.fused", "hosts", "layers", "maths"},
    "jobs": {"", "errors", "files", "fusion", "hosts.protocol", "jobs", "layers", "maths", "methods", "request"},
    "findings": {"errors", "findings", "fusion", "jobs", "layers", "maths", "methods", "request"},
    "command_line": {
        *("", "command_line", "errors", "files", "findings", "fusion"),
        *("jobs", "layers", "maths", "methods", "pipelines", "request"),
    },
    "pipelines": {"errors", "files", "fusion", "hosts", "jobs", "layers", "maths", "methods", "pipelines", "request"},
    "__main__": {"command_line"},
    "webui": {
        *("", "errors", "files", "findings", "fusion", "hosts"),
        *("jobs", "layers", "maths", "methods", "request", "webui"),
    },
}
"""What each room may import of us; "" is the package itself. Naming a room allows all of it.

A file with a row of its own may import what that says: a pipeline of diffusers has no reader of LoRAs to be asked.
"""

WITH_TORCH = {"maths", "methods", "fusion", "files", "hosts", "pipelines", "__main__"}
"""Rooms that may import torch by name."""

OF_HOSTS = {"modules", "modules_forge", "network", "networks", "lora", "backend", "ldm_patched", "launch"}
"""Modules that only exist inside a host."""

THIRD_PARTY = {
    "torch": WITH_TORCH,
    "numpy": WITH_TORCH | {"findings"},
    "safetensors": {"files", "hosts"},
    "tqdm": {"command_line"},
    "gradio": {"webui"},
    "PIL": {"pipelines", "webui"},
    **{name: {"pipelines"} for name in ("diffusers", "transformers")},
    **{name: {"webui"} for name in ("fastapi", "pydantic", "starlette")},
    "matplotlib": {"findings", "webui"},
    "psutil": {"webui"},
    **{name: {"hosts", "webui"} for name in OF_HOSTS},
}
"""Who may import what is not ours and not Python's."""


def dotted(path: Path) -> str:
    """lib_nplora/files/reader.py -> files.reader; a package goes by its name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    return module.partition(".")[0]


def is_ours(name: str) -> bool:
    """Whether the full name, lib_nplora.x.y, is a module of ours."""
    top, *rest = name.split(".")
    path = PACKAGE.joinpath(*rest)
    return top == "lib_nplora" and (path.is_dir() or path.with_suffix(".py").is_file())


def imported(path: Path) -> list[tuple[str, bool]]:
    """(module, is ours) of every import in the file, wherever it stands, and of import_module by name."""
    here = ["lib_nplora", *filter(None, dotted(path).split("."))]
    package = here if path.name == "__init__.py" else here[:-1]
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            # `from . import x` may name a module or a value of the package.
            names = [f"{base}.{alias.name}" for alias in node.names]
            found += [name if is_ours(name) else base for name in names]
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("__import__", "import_module", "importlib.import_module")
            and isinstance(node.args[0], ast.Constant)
        ):
            found.append(node.args[0].value)
    return [(name.removeprefix("lib_nplora").lstrip("."), name.partition(".")[0] == "lib_nplora") for name in found]


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_imports_point_one_way(path):
    allowed = ROOMS.get(dotted(path)) or ROOMS[room(dotted(path))]
    for module, ours in imported(path):
        if ours:
            assert is_ours(f"lib_nplora.{module}".rstrip(".")), f"{path} imports {module}, which is not there"
            assert module in allowed or room(module) in allowed, f"{dotted(path)} must not import {module}"


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_only_some_rooms_see_what_is_not_ours(path):
    for module, ours in imported(path):
        name = module.partition(".")[0]
        if not ours and name not in sys.stdlib_module_names:
            assert name in THIRD_PARTY, f"{dotted(path)} imports {name}, which is in no table"
            assert room(dotted(path)) in THIRD_PARTY[name], f"{dotted(path)} must not import {name}"


def test_host_adapters_do_not_know_each_other():
    helpers = {"hosts", "hosts.protocol", "hosts.detection", "hosts.lora_list", "hosts.collected", "hosts.namesakes"}
    helpers |= {dotted(path) for path in (PACKAGE / "hosts" / "patching").glob("*.py")}
    for path in (PACKAGE / "hosts").rglob("*.py"):
        own = ".".join(dotted(path).split(".")[:2])
        ours = {module for module, ours in imported(path) if ours and room(module) == "hosts"}
        others = {module for module in ours - helpers if not f"{module}.".startswith(f"{own}.")}
        assert not others, f"{dotted(path)} imports {others}"


def test_the_session_knows_no_host():
    """It would run `import_module` on a name otherwise, which no list of imports shows."""
    assert "import_module" not in (PACKAGE / "jobs" / "session.py").read_text(encoding="utf-8")


def test_every_room_is_there():
    names = {dotted(path) for path in FILES}
    assert {room(name) for name in names} == {room(name) for name in ROOMS}
    assert {name for name in ROOMS if "." in name} <= names


def test_the_reading_of_imports_misses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    for name in ("__init__", "a", "b/__init__", "b/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text("")
    source = """
import os.path, lib_nplora.b.c
from lib_nplora import a
from . import d as renamed
from .. import a, __version__
from ..b import c
from ..b.c import value
def late():
    if True:
        import gradio
    import importlib
    importlib.import_module("modules.sd_models")
"""
    (tmp_path / "b" / "d.py").write_text(source)
    assert sorted(imported(tmp_path / "b" / "d.py")) == [
        ("", True),
        ("a", True),
        ("a", True),
        ("b.c", True),
        ("b.c", True),
        ("b.c", True),
        ("b.d", True),
        ("gradio", False),
        ("importlib", False),
        ("modules.sd_models", False),
        ("os.path", False),
    ]


def loaded_by(*modules: str) -> set[str]:
    """Names of all modules that a fresh Python holds after importing these."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_neither_gradio_nor_matplotlib_nor_a_host_is_loaded():
    entries = ("jobs.session", "command_line.main", "findings.plots", "webui.prompt", "pipelines", "hosts.diffusers")
    loaded = {name.partition(".")[0] for name in loaded_by(*(f"lib_nplora.{entry}" for entry in entries))}
    assert not loaded & ({"gradio", "matplotlib", "PIL", "diffusers", "transformers", "peft"} | OF_HOSTS)


def test_the_package_itself_loads_no_torch():
    assert "torch" not in loaded_by("lib_nplora")


def test_looking_for_a_host_loads_none():
    """Adapters import their host late, so that every one of them can be asked."""
    loaded = loaded_by("lib_nplora.hosts.a1111", "lib_nplora.hosts.forge")
    assert not {name.partition(".")[0] for name in loaded} & OF_HOSTS
