"""A browser with a stand-in's page in it, for each Gradio that the hosts run on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from . import machine
from .panel import Panel
from .user import PATIENCE, no_complaint, of_a_user
from .webui import WebUI


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
    context = of_a_user(browser, webui)
    with no_complaint(context, webui):
        yield context
        context.close()


@pytest.fixture
def page(context, webui) -> Page:
    page = context.new_page()
    webui.open(page)
    return page


@pytest.fixture
def panel(page) -> Panel:
    """On a page of its own, switched on, with nothing chosen."""
    panel = Panel(page, "txt2img")
    panel.toggle()
    panel.unfold("more")
    return panel


@pytest.fixture(scope="package")
def kept(browser, webui) -> Iterator[Panel]:
    """On a page that stays open: to open one takes longer than most tests do."""
    context = of_a_user(browser, webui)
    panel = Panel(context.new_page(), "txt2img")
    webui.open(panel.page)
    panel.toggle()
    yield panel
    context.close()


@pytest.fixture
def paired(kept, webui) -> Iterator[Panel]:
    """Switched on, a pair chosen, all else as on a new page. For tests that change this panel and its prompt alone."""
    with no_complaint(kept.page.context, webui):
        kept.start_over()
        kept.unfold("more")
        yield kept


@pytest.fixture
def pictures(tmp_path) -> Path:
    """The folder for screenshots."""
    return Path(os.environ.get("NPLORA_SCREENSHOTS") or tmp_path)
