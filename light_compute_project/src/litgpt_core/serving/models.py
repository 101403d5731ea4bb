"""The models of a server: discovered on disk, loaded at their first request, reloaded when their files are replaced.

    name --discover--> directory --Engine.from_directory--> Worker
                          '-- replaced since it was loaded: the next request loads the new model; the old one finishes
                              its running requests

Clients use the names that `discover` returns; a path in a request is never used.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from litgpt_core.checkpoint.choice import choose, find_model
from litgpt_core.checkpoint.discovery import FoundModel, discover
from litgpt_core.core.errors import CheckpointError, LightComputeError
from litgpt_core.generation.engine import Engine
from litgpt_core.interpret.looked_at import own_modules
from litgpt_core.prompts.directory import load_style
from litgpt_core.serving.job import Stopped
from litgpt_core.serving.model_facts import ModelFacts, read_facts, suggested_messages
from litgpt_core.serving.worker import Busy, Worker

if TYPE_CHECKING:
    from litgpt_core.model.gpt import GPT
    from litgpt_core.prompts.style import PromptStyle
    from litgpt_core.serving.settings import ServerSettings

logger = logging.getLogger(__name__)

RESCAN_S = 2.0
"""Seconds for which the result of a disk scan is reused."""
SCAN_PATIENCE_S = 1.0
"""Seconds that a request for a loaded model waits for a scan; then the model is used as it was last found."""


@dataclass(kw_only=True)
class LoadedModel:
    """A model in memory."""

    found: FoundModel
    engine: Engine
    style: PromptStyle | None
    """The prompt style; None for a base model, which continues text."""
    worker: Worker
    used: float
    traced: GPT
    """The same weights in modules of its own, for `attention`."""
    suggestions: tuple[str, ...] = ()
    """First messages that the page offers."""


class UnknownModel(LightComputeError):
    """No model of that name is offered."""


class ModelBroken(LightComputeError):
    """A model exists but cannot be loaded."""


class ModelPool:
    """See the module docstring. Its methods run in one event loop; models are loaded in a thread.

    Args:
        settings: Device options, limits, and the maximum number of loaded models.
        model: The name or path given on the command line; None: the best candidate, as `checkpoint.choose` finds it.
        roots: Folders to search; None: the standard ones.
    """

    def __init__(
        self, settings: ServerSettings, *, model: str | None = None, roots: tuple[Path, ...] | None = None
    ) -> None:
        self._settings, self._requested, self._roots = settings, model, roots
        self._loaded: dict[str, LoadedModel] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._facts: dict[tuple[Path, float], ModelFacts] = {}
        self._found: list[FoundModel] = []
        self._found_at = float("-inf")
        self._scan_running: asyncio.Future[list[FoundModel]] | None = None
        self._retired: list[Worker] = []
        # one thread each: describing models, which reads their files, never delays the look-up of a request
        self._scanning = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scanning")
        self._describing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="describing")
        self._loading = ThreadPoolExecutor(max_workers=2, thread_name_prefix="loading")
        self._closing = False
        self.default = self._choose_default()

    def _choose_default(self) -> str:
        """Name of the model for requests without a model name. Raises CheckpointError if no model is found."""
        found = self._scan()
        if self._requested is None:
            chosen = choose(None, self._roots)
            logger.info("%s", chosen.reasons[0])
            best = chosen.found
        else:
            best = find_model(self._requested, self._roots)
        same = [model for model in found if model.directory.resolve() == best.directory.resolve()]
        return same[0].name if same else best.name

    def _scan(self) -> list[FoundModel]:
        """Models on disk, most recent first; includes the model of the command line, wherever it is."""
        found = list(discover(self._roots).models)
        if self._requested is not None:
            try:
                requested = find_model(self._requested, self._roots)
            except CheckpointError:
                requested = None
            known = {model.directory.resolve() for model in found}
            if requested is not None and requested.directory.resolve() not in known:
                found.insert(0, requested)
        self._found, self._found_at = found, time.monotonic()
        return found

    async def _scanned(self, *, patience_s: float | None) -> list[FoundModel]:
        """The models on disk, scanned at most `RESCAN_S` ago; all requests wait for the same scan.

        With `patience_s`, the last result is used if the scan takes longer.
        """
        if time.monotonic() - self._found_at <= RESCAN_S:
            return self._found
        if self._scan_running is None or self._scan_running.done():
            self._scan_running = asyncio.get_running_loop().run_in_executor(self._scanning, self._scan)
        done, _ = await asyncio.wait([self._scan_running], timeout=patience_s)
        if done and (problem := self._scan_running.exception()):
            logger.warning("The models on disk cannot be listed: %r", problem)
        return self._found

    # --- the list of models

    async def all(self) -> list[ModelFacts]:
        """Every available model, most recent first."""
        found = await self._scanned(patience_s=None)
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(self._describing, self._facts_of, model) for model in found]

    async def found(self) -> list[FoundModel]:
        """The models on disk, most recent first, as they were found at most `RESCAN_S` ago."""
        return await self._scanned(patience_s=None)

    async def one(self, name: str) -> ModelFacts:
        """The description of one model. Raises UnknownModel."""
        model = self._named(name, await self._scanned(patience_s=None))
        return await asyncio.get_running_loop().run_in_executor(self._describing, self._facts_of, model)

    def _facts_of(self, model: FoundModel) -> ModelFacts:
        key = (model.directory, model.modified)
        if key not in self._facts:
            if len(self._facts) > 10_000:
                self._facts.clear()
            self._facts[key] = read_facts(model)
        loaded = self._loaded.get(model.name)
        suggestions = () if loaded is None else loaded.suggestions
        return replace(self._facts[key], name=model.name, loaded=loaded is not None, suggestions=suggestions)

    def _named(self, name: str, found: list[FoundModel]) -> FoundModel:
        model = next((model for model in found if model.name == name), None)
        if model is None:
            near = ", ".join(model.name for model in found[:8])
            raise UnknownModel(f"There is no model {name!r}.", needed=f"one of {near}", fix="GET /v1/models lists them")
        return model

    @property
    def loaded(self) -> dict[str, LoadedModel]:
        """Models in memory by name."""
        return self._loaded

    # --- one model

    def load_default(self) -> None:
        """Load the default model before the event loop starts; errors are those of `Engine.from_directory`."""
        found = next(model for model in self._scan() if model.name == self.default)
        self._loaded[self.default] = self._load(found)

    async def get(self, name: str | None) -> LoadedModel:
        """The model of that name (None: the default); loads it if it is not loaded or its files were replaced.

        Raises:
            UnknownModel: There is no such model.
            ModelBroken: It cannot be loaded; the message contains no path.
            Busy: The maximum number of models is loaded and all are busy.
            Stopped: The server is closing.
        """
        name = self.default if name is None else name
        loop = asyncio.get_running_loop()
        patience = SCAN_PATIENCE_S if name in self._loaded else None
        found = self._named(name, await self._scanned(patience_s=patience))
        async with self._locks.setdefault(name, asyncio.Lock()):
            if self._closing:
                raise Stopped("The server is shutting down.")
            loaded = self._loaded.get(name)
            if loaded is None:
                self._evict_idle()
            if loaded is None or (loaded.found.directory, loaded.found.modified) != (found.directory, found.modified):
                try:
                    fresh = await loop.run_in_executor(self._loading, self._load, found)
                except LightComputeError as problem:
                    logger.warning("%s cannot be loaded: %s", name, problem)
                    raise ModelBroken(
                        f"The model {name!r} cannot be loaded.",
                        needed="a complete, uncorrupted checkpoint; see the server's log",
                    ) from problem
                if loaded is not None:
                    logger.info("%s was replaced on disk: reloaded", name)
                    self._retire(loaded)
                self._loaded[name] = loaded = fresh
            loaded.used = time.monotonic()
            return loaded

    def _load(self, found: FoundModel) -> LoadedModel:
        s = self._settings
        engine = Engine.from_directory(
            found.directory,
            device=s.device,
            dtype=s.precision,
            compile=s.compile,
            kv_cache=s.kv_cache,
            speculative=s.speculative,
            packed_weights=True,
        )
        style = load_style(found.directory)
        suggestions = suggested_messages(found.directory, engine.tokenizer, chat=style is not None)
        slots = slots_that_fit(engine, requested=s.slots)
        traced = own_modules(engine.model)  # before the worker's thread begins
        worker = Worker(engine, slots=slots, queue=s.queue, name=found.name)
        logger.info("loaded %s: %s", found.name, "a chat model" if style else "a base model, which continues text")
        return LoadedModel(
            found=found,
            engine=engine,
            style=style,
            worker=worker,
            traced=traced,
            used=time.monotonic(),
            suggestions=suggestions,
        )

    def _evict_idle(self) -> None:
        """Unload idle models until another one can be loaded. Raises Busy if all loaded models are busy."""
        while len(self._loaded) >= self._settings.max_loaded:
            idle = [(model.used, name) for name, model in self._loaded.items() if model.worker.idle]
            if not idle:
                raise Busy(
                    f"All {len(self._loaded)} loaded models are busy, and no more may be loaded.", retry_after_s=5
                )
            _, name = min(idle)
            logger.info("unloading %s", name)
            self._retire(self._loaded.pop(name))

    def _retire(self, model: LoadedModel) -> None:
        self._retired = [worker for worker in self._retired if not worker.idle]
        self._retired.append(model.worker)
        settings = {"drain_s": self._settings.timeout_s}
        threading.Thread(target=model.worker.close, kwargs=settings, name="retiring", daemon=True).start()

    def close(self) -> None:
        """Stop all workers; running requests get `drain_s` seconds to finish."""
        self._closing = True
        workers = [*self._retired, *(model.worker for model in self._loaded.values())]
        deadline = time.monotonic() + self._settings.drain_s
        for worker in workers:
            worker.close(drain_s=max(0.0, deadline - time.monotonic()))
        for threads in (self._scanning, self._describing, self._loading):
            threads.shutdown(wait=False, cancel_futures=True)


def slots_that_fit(engine: Engine, *, requested: int) -> int:
    """Number of slots whose full KV caches take at most a third of the free memory; logs it if fewer than requested."""
    c, device = engine.model.config, engine.model.device
    widths = c.qk_head_dim + c.v_head_dim if c.latent_attention else 2 * c.head_size
    heads = c.n_head if c.latent_attention else c.n_query_groups
    itemsize = 1 if engine.kv_cache == "int8" else engine.model.dtype.itemsize
    scales = 8 if engine.kv_cache == "int8" else 0  # of a key and a value
    each = c.n_layer * heads * (widths * itemsize + scales) * c.block_size
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    slots = max(1, min(requested, free // 3 // each))
    if slots < requested:
        logger.warning("%d slots instead of %d: the KV cache of one slot takes %.2f GB", slots, requested, each / 1e9)
    return int(slots)
