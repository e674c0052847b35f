"""A user's browser, which nothing may complain in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, WebError

from .webui import WebUI

PATIENCE = 30_000
"""Milliseconds that a page may take, on a busy machine."""


def of_a_user(browser: Browser, webui: WebUI) -> BrowserContext:
    """A user's browser. It reaches no other machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(PATIENCE)
    context.route(lambda url: not url.startswith(webui.url), lambda route: route.fulfill(status=200, body=""))
    return context


@contextmanager
def no_complaint(context: BrowserContext, webui: WebUI) -> Iterator[None]:
    """Nothing in this browser complains meanwhile, nor does the page's process."""
    problems: list[str] = []
    before = len(webui.log())

    def on_message(message: ConsoleMessage) -> None:
        if message.type == "error":
            problems.append(message.text)

    def on_error(error: WebError) -> None:
        problems.append(str(error.error))

    context.on("console", on_message)
    context.on("weberror", on_error)
    yield
    context.remove_listener("console", on_message)
    context.remove_listener("weberror", on_error)
    assert problems == []
    said = webui.log()[before:]
    assert "Traceback" not in said, said
