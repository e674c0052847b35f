"""What the prompts of a running WebUI ask for, fused and made part of its model."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import FileError, NploraError, RequestError
from ..fusion.fused import FusedLora
from ..hosts.protocol import Host, ShelfFile, shelf_of
from ..layers.block import Block
from ..layers.weights import DeltaMap, LoraWeights
from ..maths.cache import ByteLru
from ..maths.dense import DenseDelta
from ..maths.remade import Remade
from ..request.request import FusionRequest
from .job import PLAIN_MERGE, Job, LoadedLora, Remark
from .repeats import Honoured, repeats

logger = logging.getLogger("nplora")

GIB = 2**30


@dataclass(frozen=True)
class Asked:
    """A fusion that a prompt asks for.

    tag
        The text in the prompt.
    request
        What it says, or why it cannot be read.
    by_role
        Whether it is spelled as roles on ordinary LoRA tags, which the host merges plainly if we do not fuse them.
    remarks
        What is to be said of the tag if it is honoured.
    """

    tag: str
    request: FusionRequest | RequestError
    by_role: bool = False
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Plan:
    """What a prompt comes to.

    honoured
        The requests that will be applied, with their fusions.
    problems
        Why the other requests will not be, for the picture.
    remarks
        What the user would not expect of those that will, for the picture.
    files
        Every LoRA that goes into the picture, by the name that the prompt gives it.
    """

    asked: Sequence[Asked]
    honoured: Mapping[Asked, FusedLora]
    problems: Sequence[str]
    remarks: Sequence[str]
    files: Mapping[str, ShelfFile]

    @property
    def by_role(self) -> bool:
        """Whether LoRAs that the host would merge plainly are fused instead."""
        return any(asked.by_role for asked in self.honoured)


@dataclass(frozen=True)
class Applied:
    """What became of a plan.

    problems
        For the picture. If there is any, nothing at all is applied.
    stale_text
        The same tags meant other weights last time (a file was replaced, say), so text that was encoded for these tags
        then must be encoded again.
    """

    problems: Sequence[str]
    stale_text: bool


class Session:
    """The fusions of one running WebUI. It owns all their state, and lets no exception out."""

    def __init__(self, host: Host, cache_gib: float = 5) -> None:
        self.host = host
        self._loras = ByteLru(0)
        self._bases = ByteLru(0, strict=True)
        self._fused = ByteLru(0)
        self.resize(cache_gib)
        self._model: Hashable = None
        self._known_blocks: tuple[Hashable, Collection[Block]] | None = None
        self._contested: dict[Asked, FusedLora] = {}
        self._meant: OrderedDict[tuple[str, ...], tuple[str, ...]] = OrderedDict()

    def resize(self, cache_gib: float) -> None:
        """Bound what is kept between pictures: LoRAs, decompositions and fusions."""
        for cache, share in ((self._loras, 0.4), (self._bases, 0.4), (self._fused, 0.2)):
            cache.max_bytes = int(share * cache_gib * GIB)

    def prepare(self, asked: Sequence[Asked]) -> Plan:
        """Fuse what a prompt asks for. Applies nothing yet. A request that fails becomes a comment."""
        honoured: dict[Asked, FusedLora] = {}
        problems: list[str] = []
        remarks: list[str] = []
        files: dict[str, ShelfFile] = {}
        tags: list[Honoured] = []
        self._forget_other_models()
        for one in asked:
            try:
                if isinstance(one.request, RequestError):
                    raise one.request
                for cache in (self._loras, self._bases, self._fused):
                    cache.begin_round()
                used, fused, unexpected = self._fuse(one.request)
            except Exception as error:
                problems.append(_comment(one.tag, _reason(error)))
                continue
            honoured[one] = fused
            files.update(used)
            tags.append(Honoured(one.tag, one.request, fused.fingerprint, used))
            remarks.extend(_comment(one.tag, remark) for remark in (*one.remarks, *unexpected))
        remarks.extend(_comment(tag, remark) for tag, remark in repeats(tags))
        return Plan(asked, honoured, problems, remarks, files)

    def apply(self, plan: Plan) -> Applied:
        """Make the plan, and nothing else of ours, part of the model."""
        by_fingerprint = {fused.fingerprint: fused for fused in plan.honoured.values()}
        problems: list[str] = []
        try:
            if by_fingerprint:
                self.host.model.apply(list(by_fingerprint.values()))
            else:
                self.host.model.clear()
        except Exception as error:
            problems = [_comment(asked.tag, _reason(error)) for asked in plan.honoured]
            by_fingerprint = {}
            self.clear()
        else:
            self._contested = {asked: fused for asked, fused in plan.honoured.items() if fused.schedule}
        return Applied(problems, self._means_other(plan.asked, tuple(by_fingerprint)))

    @property
    def changes_with_steps(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._contested)

    def step(self, step: int, steps: int) -> list[str]:
        """Give each contested layer to its winner of this step. To be called before the model is.

        Returns what went wrong, for the picture. What fails once is left as it is for the rest of the picture.
        """
        problems = []
        for asked, fused in list(self._contested.items()):
            assert fused.schedule is not None
            try:
                self.host.model.swap(fused, fused.schedule.winners(step, steps))
            except Exception as error:
                del self._contested[asked]
                problems.append(
                    _comment(asked.tag, f"stopped changing at step {step + 1} of {steps}: {_reason(error)}")
                )
        return problems

    def clear(self) -> None:
        """Leave the model as it would be without us. What was read and decomposed is kept."""
        self._contested = {}
        try:
            self.host.model.clear()
        except Exception:
            logger.exception("cannot clear")

    def _forget_other_models(self) -> None:
        """What was read for the model before the last switch fits no other, and would keep it in memory."""
        try:
            model = self.host.model.token()
        except Exception as error:
            logger.debug("no model is loaded: %s", error)
            return
        if model != self._model:
            self._model = model
            self._loras.clear()
            self._fused.clear()

    def _fuse(self, request: FusionRequest) -> tuple[dict[str, ShelfFile], FusedLora, list[str]]:
        """The LoRAs of the request, what they become, and what the user might not expect of it."""
        request.check()
        shelf = shelf_of(self.host)
        files = {source.name: shelf.resolve(source.name) for source in (*request.contents, *request.styles)}
        contents, styles = (
            [self._loaded(source.name, files[source.name]) for source in side]
            for side in (request.contents, request.styles)
        )
        job = Job(request, contents, styles, self._blocks())
        fused = self._fused.get(job.fingerprint, lambda: self._made(job))
        logger.info("%s: %s", fused.title, fused.summary)
        remarks = [remark.told("WebUI") for remark in job.remarks(fused.summary, fused.schedule)]
        if job.merges_plainly(fused.summary):
            remarks.append(PLAIN_MERGE)
        kept = (delta for delta in fused.deltas.values() if not isinstance(delta, Remade))
        whole = sum(delta.nbytes for delta in kept if isinstance(delta, DenseDelta))
        if whole > GIB:
            remarks.append(f"its layers have no small rank, so it takes {whole / GIB:.1f} GiB of memory")
        return files, fused, remarks

    def _blocks(self) -> Collection[Block]:
        """Those of the loaded model."""
        if self._known_blocks is None or self._known_blocks[0] != self._model:
            self._known_blocks = self._model, self.host.model.blocks()
        return self._known_blocks[1]

    def _made(self, job: Job) -> FusedLora:
        job.check()
        for lora in (*job.contents, *job.styles):
            deltas = lora.weights.deltas
            if isinstance(deltas, DeltaMap) and deltas.made:
                logger.info("%s: %d layers have no factors, which takes a while", lora.name, deltas.made)
        return job.fuse(self._bases, self.host.model.dtype)

    def _loaded(self, name: str, file: ShelfFile) -> LoadedLora:
        """The LoRA that the user calls `name`."""
        weights = self._loras.get(file.stamp, lambda: self._read(file))
        basename, remarks = os.path.basename(file.path), remarks_of_name(name, file)
        return LoadedLora(weights, name, basename, file.metadata, remarks=remarks)

    def _read(self, file: ShelfFile) -> LoraWeights:
        try:
            return self.host.model.load(file)
        except NploraError:
            raise
        except Exception as error:
            logger.warning("cannot read %s", file.path, exc_info=True)
            told = f" ({error})" if str(error) else ""
            raise FileError(
                f"'{file.name}' cannot be read{told}: it is damaged, or of a kind that this WebUI does not know"
            ) from error

    def _means_other(self, asked: Sequence[Asked], now: tuple[str, ...]) -> bool:
        """Whether the same tags meant other weights last time."""
        tags = tuple(one.tag for one in asked)
        before = self._meant.pop(tags, now)
        self._meant[tags] = now
        while len(self._meant) > 64:
            self._meant.popitem(last=False)
        return before != now


def remarks_of_name(name: str, file: ShelfFile) -> list[Remark]:
    """Which file the user's `name` means, if others have it, too."""
    if not file.namesakes:
        return []
    own, *others = file.namesakes
    return [Remark(f"'{name}' is {own}, not {' or '.join(others)}: rename one to use both")]


def _reason(error: Exception) -> str:
    if isinstance(error, NploraError):
        return error.told("WebUI")
    logger.error("this should not happen", exc_info=error)
    return f"{type(error).__name__}: {error} (details are in the console)"


def _comment(tag: str, text: str) -> str:
    """What a picture says of a tag, in one line: a host's own words may be more."""
    return f"NP-LoRA: {tag}: {' '.join(text.split())}"
