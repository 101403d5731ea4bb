"""The models that a server offers: found on the disk anew when asked, loaded when first used, newer ones taken over.

    name --discover--> directory --Engine.from_directory--> Worker
                          '-- written anew since it was loaded: the next request loads the new one; the old one finishes
                              what it has begun

Clients name models by the names that `discover` gives; a path is never taken from a request.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from litgpt_core.checkpoint.discovery import FoundModel, discover, find_model
from litgpt_core.checkpoint.load import empty_model
from litgpt_core.core.errors import CheckpointError, LightComputeError
from litgpt_core.generation.engine import Engine
from litgpt_core.model.config import GPTConfig
from litgpt_core.prompts.directory import load_style
from litgpt_core.serving.job import Stopped
from litgpt_core.serving.worker import Busy, Worker

if TYPE_CHECKING:
    from litgpt_core.prompts.style import PromptStyle
    from litgpt_core.serving.settings import ServerSettings

logger = logging.getLogger(__name__)

LOOK_AGAIN_S = 2.0
"""Seconds for which a look around the disk is believed."""


@dataclass(kw_only=True)
class LoadedModel:
    """A model in memory."""

    found: FoundModel
    engine: Engine
    style: PromptStyle | None
    """How its conversations are written; None: a base model, which continues text."""
    worker: Worker
    used: float


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a list says about a model, loaded or not."""

    name: str
    modified: float
    loaded: bool
    chat: bool | None
    parameters: int | None
    context_length: int | None


class UnknownModel(LightComputeError):
    """No model of that name is offered."""


class ModelBroken(LightComputeError):
    """A model is there and cannot be loaded."""


class ModelShelf:
    """See the module. Its methods run in one event loop; loading happens in a thread.

    Args:
        settings: Where and how models run, and how many stay.
        model: What the person at the keyboard typed: a name or a path; None: the newest that is found.
        roots: Where models are looked for; None: the usual places.
    """

    def __init__(
        self, settings: ServerSettings, *, model: str | None = None, roots: tuple[Path, ...] | None = None
    ) -> None:
        self._settings, self._typed, self._roots = settings, model, roots
        self._loaded: dict[str, LoadedModel] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._facts: dict[tuple[Path, float], tuple[bool | None, int | None, int | None]] = {}
        self._found: list[FoundModel] = []
        self._found_at = 0.0
        self._retired: list[Worker] = []
        self._looking = ThreadPoolExecutor(max_workers=2, thread_name_prefix="looking")
        self._loading = ThreadPoolExecutor(max_workers=2, thread_name_prefix="loading")
        self._closing = False
        self.default = self._choose_default()

    def _choose_default(self) -> str:
        """Name of the model that requests get which name none. Raises CheckpointError where there is none."""
        found = self._look()
        if self._typed is None:
            if not found:
                looked = discover(self._roots)
                raise CheckpointError(
                    f"No model was found ({'; '.join([*looked.looked_at, *looked.passed_over])}).",
                    needed="a trained or downloaded model below the current folder, or its path",
                    fix="serve.py runs/NAME; to train one: train.py +experiment=smoke",
                )
            others = f", the newest of {len(found)} models" if len(found) > 1 else ""
            logger.info("model: %s%s (%s)", found[0].name, others, found[0].directory)
            return found[0].name
        chosen = find_model(self._typed, self._roots)
        same = [model for model in found if model.directory.resolve() == chosen.directory.resolve()]
        return same[0].name if same else chosen.name

    def _look(self) -> list[FoundModel]:
        """Models on the disk, newest first; the one that was typed is among them wherever it lies."""
        if time.monotonic() - self._found_at > LOOK_AGAIN_S:
            found = list(discover(self._roots).models)
            if self._typed is not None:
                try:
                    typed = find_model(self._typed, self._roots)
                except CheckpointError:
                    typed = None
                known = {model.directory.resolve() for model in found}
                if typed is not None and typed.directory.resolve() not in known:
                    found.insert(0, typed)
            self._found, self._found_at = found, time.monotonic()
        return self._found

    # --- what there is

    async def all(self) -> list[ModelFacts]:
        """Every model that may be asked for, newest first."""
        return await asyncio.get_running_loop().run_in_executor(self._looking, self._all)

    def _all(self) -> list[ModelFacts]:
        return [
            ModelFacts(
                name=model.name,
                modified=model.modified,
                loaded=model.name in self._loaded,
                chat=facts[0],
                parameters=facts[1],
                context_length=facts[2],
            )
            for model in self._look()
            for facts in [self._facts_of(model)]
        ]

    def _facts_of(self, model: FoundModel) -> tuple[bool | None, int | None, int | None]:
        key = (model.directory, model.modified)
        if key not in self._facts:
            try:
                config = GPTConfig.from_checkpoint(model.directory)
                chat = load_style(model.directory) is not None
                self._facts[key] = (chat, empty_model(config).num_parameters(), config.block_size)
            except LightComputeError as problem:
                logger.warning("%s cannot be described: %s", model.name, problem)
                self._facts[key] = (None, None, None)
        return self._facts[key]

    @property
    def loaded(self) -> dict[str, LoadedModel]:
        """Models in memory by name."""
        return self._loaded

    # --- one model

    def load_default(self) -> None:
        """Load the default model now, before there is an event loop; errors are those of `Engine.from_directory`."""
        found = next(model for model in self._look() if model.name == self.default)
        self._loaded[self.default] = self._load(found)

    async def get(self, name: str | None) -> LoadedModel:
        """The model of that name (None: the default), loaded now if it is not, or if it was written anew.

        Raises:
            UnknownModel: It is not offered.
            ModelBroken: It cannot be loaded; says no path.
            Busy: As many models as may be loaded are at work.
            Stopped: The server is closing.
        """
        wanted = self.default if name is None else name
        loop = asyncio.get_running_loop()
        models = await loop.run_in_executor(self._looking, self._look)
        found = next((model for model in models if model.name == wanted), None)
        if found is None:
            near = ", ".join(model.name for model in models[:8])
            raise UnknownModel(
                f"There is no model {wanted!r}.", needed=f"one of {near}", fix="GET /v1/models lists them"
            )
        async with self._locks.setdefault(wanted, asyncio.Lock()):
            if self._closing:
                raise Stopped("The server is shutting down.")
            here = self._loaded.get(wanted)
            if here is None:
                self._make_room()
            if here is None or (here.found.directory, here.found.modified) != (found.directory, found.modified):
                try:
                    fresh = await loop.run_in_executor(self._loading, self._load, found)
                except LightComputeError as problem:
                    logger.warning("%s cannot be loaded: %s", wanted, problem)
                    raise ModelBroken(
                        f"The model {wanted!r} cannot be loaded.", needed="whole files; the server's log says more"
                    ) from problem
                if here is not None:
                    logger.info("%s was written anew: taken over", wanted)
                    self._retire(here)
                self._loaded[wanted] = here = fresh
            here.used = time.monotonic()
            return here

    def _load(self, found: FoundModel) -> LoadedModel:
        s = self._settings
        engine = Engine.from_directory(
            found.directory, device=s.device, dtype=s.precision, compile=s.compile, packed_weights=True
        )
        style = load_style(found.directory)
        slots = slots_that_fit(engine, wanted=s.slots)
        worker = Worker(engine, slots=slots, queue=s.queue, name=found.name)
        logger.info("loaded %s: %s", found.name, "conversations" if style else "a base model, continues text")
        return LoadedModel(found=found, engine=engine, style=style, worker=worker, used=time.monotonic())

    def _make_room(self) -> None:
        """Let idle models go until another one may be loaded; raises Busy where all of them are at work."""
        while len(self._loaded) >= self._settings.max_loaded:
            idle = [(model.used, name) for name, model in self._loaded.items() if model.worker.idle]
            if not idle:
                raise Busy(f"{len(self._loaded)} models are at work, as many as may be loaded.", retry_after_s=5)
            _, name = min(idle)
            logger.info("%s makes room", name)
            self._retire(self._loaded.pop(name))

    def _retire(self, model: LoadedModel) -> None:
        self._retired = [worker for worker in self._retired if not worker.idle]
        self._retired.append(model.worker)
        words = {"drain_s": self._settings.timeout_s}
        threading.Thread(target=model.worker.close, kwargs=words, name="retiring", daemon=True).start()

    def close(self) -> None:
        """End all workers: what runs gets `drain_s` seconds."""
        self._closing = True
        workers = [*self._retired, *(model.worker for model in self._loaded.values())]
        deadline = time.monotonic() + self._settings.drain_s
        for worker in workers:
            worker.close(drain_s=max(0.0, deadline - time.monotonic()))
        for threads in (self._looking, self._loading):
            threads.shutdown(wait=False, cancel_futures=True)


def slots_that_fit(engine: Engine, *, wanted: int) -> int:
    """Texts at once whose full caches take at most a third of the memory that is free; said in the log if fewer."""
    c, weight = engine.model.config, engine.model.lm_head.weight
    widths = c.qk_head_dim + c.v_head_dim if c.latent_attention else 2 * c.head_size
    heads = c.n_head if c.latent_attention else c.n_query_groups
    each = c.n_layer * heads * widths * c.block_size * weight.element_size()
    free = torch.cuda.mem_get_info(weight.device)[0] if weight.is_cuda else psutil.virtual_memory().available
    slots = max(1, min(wanted, free // 3 // each))
    if slots < wanted:
        logger.warning("%d texts at once instead of %d: a cache takes %.2f GB", slots, wanted, each / 1e9)
    return int(slots)
