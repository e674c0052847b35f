"""A stand-in that is soaked: pictures, requests and names that end in an answer, or in NoAnswer."""

from __future__ import annotations

import importlib
import json
import logging
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lib_nplora.errors import RequestError
from lib_nplora.jobs.session import Applied, Plan

from ..hosts.contract import Loras
from ..hosts.driver import SAME, Job
from ..hosts.standins.common import NAMES, attribute, forget_text
from ..hosts.standins.driver import StandIn, running
from .sentences import NoAnswer, check

LORA_TAGS = ("lora", "lyco")

ON_ERROR, STOP, SAY = "nplora_on_error", "Stop, without a picture", "Say so under the picture"


class Heard(logging.Handler):
    """What our log has heard."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def check(self) -> None:
        """Raises NoAnswer for an error of ours, and forgets what was heard."""
        records, self.records = self.records, []
        for record in records:
            error = record.exc_info[1] if record.exc_info else None
            if record.levelno >= logging.ERROR or (error and _raised_by_us(error)):
                raise NoAnswer(f"in the log: {record.getMessage()[:500]}\n{_told(error) if error else ''}")


@dataclass
class Last:
    """The last activation of a picture.

    data
        The host's tags, of the passes before, too.
    plan, applied
        What became of them; None if we were not asked.
    step
        (step, steps) that the fusions were last told of.
    """

    data: tuple[Any, ...] = ()
    plan: Plan | None = None
    applied: Applied | None = None
    step: tuple[int, int] | None = None


class Bench:
    """One running stand-in, with the contract's LoRAs."""

    def __init__(self, host: StandIn) -> None:
        self.host = host
        self.loras = Loras(host)
        for folder in ("styles", "../elsewhere"):
            (host.lora_dir / folder).mkdir()
        (host.lora_dir / "out").symlink_to(host.lora_dir.parent / "elsewhere")
        host.networks.list_available_networks()
        self.client = TestClient(self._app())
        self.heard = Heard()
        self._last = Last()
        self._session = importlib.import_module("lib_nplora.webui.running").session()
        self._watch()

    def _app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/sdapi/v1/txt2img", lambda: {}, methods=["POST"])
        self.host.callbacks.call("app_started", None, app)
        return app

    def _watch(self) -> None:
        """Note what is asked of us and what we make of it."""
        session, networks = self._session, self.host.extra_networks
        activate, apply, step = networks.activate, session.apply, session.step

        def activated(p: Any, data: Any) -> None:
            self._last = Last((*self._last.data, data))
            activate(p, data)

        def applied(plan: Plan) -> Applied:
            self._last.plan, self._last.applied = plan, apply(plan)
            return self._last.applied

        def stepped(number: int, steps: int) -> list[str]:
            self._last.step = number, steps
            return step(number, steps)

        self._activate, self._bare = activated, activate.__wrapped__
        networks.activate, session.apply, session.step = activated, applied, stepped

    # pictures

    def picture(self, job: Job, sound: bool = False, stops: bool = False) -> str:
        """What a picture is answered with, in a few words. Raises NoAnswer.

        sound
            Whether everything that it asks for must be honoured.
        stops
            Whether the host is set to make no picture where that cannot be.
        """
        self.host.set_option(ON_ERROR, STOP if stops else SAY)
        of = len(job.prompt) + len(repr(job.panel)) + len(job.hr_prompt or "") + len(job.negative_prompt)
        self._last = Last()
        forget_text()
        try:
            picture = self.host.picture(job)
        except RequestError as error:
            check(str(error), of)
            self._left_without_us()
            if not stops or sound:
                raise NoAnswer(f"stopped: {error}") from None
            return "no picture, and why"
        except Exception as error:
            if _raised_by_us(error) or not self._fails_without_us(error):
                raise NoAnswer(_told(error)) from None
            return "the host's own error"
        finally:
            self.heard.check()
        json.dumps(picture.params)
        for comment in picture.comments:
            check(comment, of)
        errors = self._errors()
        honoured = self._check_weights(errors)
        last, told = self._last, " ".join(picture.comments)
        for asked in last.plan.asked if last.plan else ():
            if asked not in last.plan.honoured and not stops and _shown(asked.tag) not in told:
                raise NoAnswer(f"not a word about {asked.tag}")
        if sound and (not honoured or not last.plan or len(honoured) < len(last.plan.asked)):
            raise NoAnswer(f"refused: {told}")
        if errors:
            return "the host's own error"
        if honoured:
            return "a fusion, and a remark" if told else "a fusion"
        return "a picture without, and why" if told else "a picture without, nothing asked"

    def _fails_without_us(self, error: Exception) -> bool:
        """Whether the host raises this error over the last tags without us, too."""
        self.host.errors.clear()
        try:
            self._left_without_us()
        except type(error) as again:
            return str(again) == str(error)
        finally:
            self._bare_picture({})
        return False

    def _errors(self) -> list[str]:
        """The host's own, displayed so far. Raises NoAnswer for one of ours."""
        errors, self.host.errors[:] = list(self.host.errors), []
        for error in errors:
            if _raised_by_us(error):
                raise NoAnswer(_told(error))
        return [repr(error) for error in errors]

    def _check_weights(self, errors: Sequence[str]) -> list[Any]:
        """The fusions that stand in the weights: whole and nothing else beside what the host adds. Raises NoAnswer."""
        found = self._deltas()
        if errors:
            self._bare_picture({})  # A host that failed takes the same tags, the next time, for done.
        plan, applied = self._last.plan, self._last.applied
        honoured = [*dict.fromkeys(plan.honoured.values())] if plan and applied and not applied.problems else []
        base, without = self._left_without_us(bool(honoured) and plan is not None and plan.by_role)
        for data in self._last.data[:-1] if errors else ():
            without += self._bare_picture(data)
        if set(errors) - set(without):
            raise NoAnswer(f"errors of the host that it has not without us: {errors}, without: {without}")
        if without:
            return honoured
        for name, delta in found.items():
            if not np.isfinite(base[name]).all():
                continue
            updates = [update for fused in honoured if (update := self._update(fused, name)) is not None]
            expected = base[name] + sum(updates) if updates else base[name]
            if not updates and not np.array_equal(delta, expected, equal_nan=True):
                raise NoAnswer(f"{name} is off by {np.abs(delta - expected).max()}, which nobody asked for")
            if updates and not _close(delta, expected):
                raise NoAnswer(f"{name} is not its fusion, off by {np.abs(delta - expected).max()}")
        return honoured

    def _update(self, fused: Any, name: str) -> np.ndarray | None:
        """What a fusion adds to the weight of a layer at the step that was reached; None if nothing."""
        part = "te" if name.startswith("lora_te") else "unet"
        keys = [
            key
            for key in fused.deltas
            if key.part == part and re.sub(r"\.weight$", "", str(key.name)).endswith(attribute(name))
        ]
        if not keys:
            return None
        (key,) = keys
        winners = fused.first_winners()
        if fused.schedule and self._last.step:
            winners = fused.schedule.winners(*self._last.step)
        return fused.update(key, winners).dense().numpy()

    def _deltas(self) -> dict[str, np.ndarray]:
        return {name: self.host.delta(name) for name in NAMES}

    def _left_without_us(self, by_role: bool = False) -> tuple[dict[str, np.ndarray], list[str]]:
        """The weights of the last tags without us, less the roles that are honoured; and the host's errors."""
        data = {
            name: [params for params in tags if not (by_role and name in LORA_TAGS and _has_role(params))]
            for name, tags in (self._last.data[-1] if self._last.data else {}).items()
        }
        errors = self._bare_picture(data)
        weights = self._deltas()
        changed = [name for name, delta in weights.items() if np.any(delta != 0)]
        if changed and not errors and not any(data.get(name) for name in LORA_TAGS):
            raise NoAnswer(f"left behind in {', '.join(changed)}")
        return weights, errors

    def _bare_picture(self, data: Any) -> list[str]:
        """Make a picture of these tags without us. Returns the host's errors."""

        def bare(p: Any, _: Any) -> None:
            self._bare(p, data)

        self._session.clear()
        self.host.extra_networks.activate = bare
        forget_text()
        try:
            self.host.picture(Job("a cat"))
        finally:
            self.host.extra_networks.activate = self._activate
        return self._errors()

    # the API

    def post(self, route: str, body: bytes) -> str:
        """What a request is answered with. Raises NoAnswer."""
        before = self._files()
        try:
            answer = self.client.post(f"/nplora/v1/{route}", content=body, headers={"Content-Type": "application/json"})
        except Exception as error:
            raise NoAnswer(_told(error)) from None
        self.heard.check()
        new = self._files() - before
        try:
            return self._judged(route, answer, new, len(body))
        finally:
            for path in new:
                path.unlink()
            if new:
                self.host.networks.list_available_networks()

    def _judged(self, route: str, answer: Any, new: set[Path], of: int) -> str:
        told = answer.json()
        if answer.status_code == 200:
            remarks = [*told["remarks"], *told.get("findings", ())]
            for remark in remarks:
                check(remark, of)
            if new != ({Path(told["path"])} if route == "fuse" else set()):
                raise NoAnswer(f"new files: {new}, told: {told.get('path')}")
            if any(not path.resolve().is_relative_to(self.host.lora_dir.resolve()) for path in new):
                raise NoAnswer(f"outside of the folder: {new}")
            return "200, with a remark" if told["remarks"] else "200"
        if not 400 <= answer.status_code < 500:
            raise NoAnswer(f"{answer.status_code}: {answer.text[:1000]}")
        if list(told) != ["detail"] or not isinstance(told["detail"], str) or new:
            raise NoAnswer(f"{answer.status_code} with {told}, new files: {new}")
        check(told["detail"], of)
        return f"{answer.status_code}, with a sentence"

    def _files(self) -> set[Path]:
        return {path for path in self.host.lora_dir.parent.rglob("*") if path.is_file()}

    # names

    @contextmanager
    def listed(self, name: str) -> Iterator[bool]:
        """Within it, a LoRA of that name is in the host's list; False if the file system has no such name."""
        path = self.host.lora_dir / f"{name}.safetensors"
        try:
            if "/" in name or path.stem != name or path.exists():
                raise OSError("no name of a new file")
            path.hardlink_to(self.loras.dog)
        except (OSError, ValueError):
            yield False
            return
        self.host.networks.list_available_networks()
        try:
            yield True
        finally:
            path.unlink()
            self.host.networks.list_available_networks()

    def check_list(self, name: str) -> None:
        """Raises NoAnswer unless the API lists the LoRA."""
        answer = self.client.get("/nplora/v1/loras")
        self.heard.check()
        if answer.status_code != 200:
            raise NoAnswer(f"{answer.status_code}: {answer.text[:1000]}")
        if _text(name) not in [lora["name"] for lora in answer.json()]:
            raise NoAnswer("it is not listed")


@contextmanager
def bench(kind: type[StandIn], folder: Path) -> Iterator[Bench]:
    """A stand-in with its LoRAs in a folder within this one."""
    lora_dir = folder / "LoRAs"
    lora_dir.mkdir()
    with running(kind, lora_dir) as host:
        made = Bench(host)
        logger = logging.getLogger("nplora")
        logger.addHandler(made.heard)
        try:
            yield made
        finally:
            logger.removeHandler(made.heard)


def _close(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether a layer holds what is expected, as far as float32 can hold it, and that is finite."""
    scale = np.abs(expected.astype(np.float64)).max()
    off = np.abs(found.astype(np.float64) - expected).max()
    return bool(off <= SAME * scale + 1e-6)


def _has_role(params: Any) -> bool:
    return any(re.match(r"\s*role\s*=", item, re.IGNORECASE) for item in params.items)


def _shown(text: str) -> str:
    """As a comment has it: in one line."""
    return _text(" ".join(text.splitlines()))


def _text(name: str) -> str:
    """Without what no text can hold."""
    return name.encode("utf-8", "backslashreplace").decode()


def _raised_by_us(error: BaseException) -> bool:
    return any("lib_nplora" in frame.filename for frame in traceback.extract_tb(error.__traceback__))


def _told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-3000:]
