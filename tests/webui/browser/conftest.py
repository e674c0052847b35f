"""A browser with a stand-in's page in it, for each Gradio that the hosts run on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from . import machine
from .panel import Panel
from .webui import WebUI

PATIENCE = 30_000
"""Milliseconds that a page may take, on a busy machine."""


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Not for the session: while it runs, no other test can run an event loop."""
    if machine.CHROMIUM is None:
        pytest.skip(machine.NO_CHROMIUM)
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE)
        browser = playwright.chromium.launch(executable_path=machine.CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package", params=machine.GRADIOS)
def webui(request, tmp_path_factory) -> Iterator[WebUI]:
    if reason := machine.missing(request.param):
        pytest.skip(reason)
    with WebUI(request.param, tmp_path_factory.mktemp("webui")) as webui:
        yield webui


@pytest.fixture
def context(browser, webui) -> Iterator[BrowserContext]:
    """A user's browser. It reaches no other machine, and complains of nothing."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(PATIENCE)
    problems: list[str] = []
    before = len(webui.log())
    context.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    context.on("weberror", lambda error: problems.append(str(error.error)))
    context.route(lambda url: not url.startswith(webui.url), lambda route: route.fulfill(status=200, body=""))
    yield context
    context.close()
    assert problems == []
    assert "Traceback" not in webui.log()[before:]


@pytest.fixture
def page(context, webui) -> Page:
    page = context.new_page()
    webui.open(page)
    return page


@pytest.fixture
def panel(page) -> Panel:
    panel = Panel(page, "txt2img")
    panel.toggle()
    panel.unfold("more")
    return panel


@pytest.fixture
def pictures(tmp_path) -> Path:
    """The folder for screenshots."""
    return Path(os.environ.get("NPLORA_SCREENSHOTS") or tmp_path)
