"""What the page's view of trainings asks for: a list of runs, one run, curves. Files are read in a thread of their own.

    GET /v1/runs[?since=VERSION]                                 every run of the folder, and its model if it has one
    GET /v1/runs/curves?run=A&run=B[&key=...][&x=tokens][&since=VERSION]
    GET /v1/runs/one?run=A                                       config, samples, the command that started it

An answer has a `version`; asked again with it, the server answers `{"version": ..., "unchanged": true}` while no file
of these runs has changed. So a page can ask every few seconds while a run trains.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from litgpt_core.checkpoint.discovery import FoundModel
from litgpt_core.core.errors import LightComputeError
from litgpt_core.runs.watching import RunWatch
from litgpt_core.serving.worker import Busy

MOST_WAITING = 16
"""Questions about runs at the same time; further ones get status 429."""

Result = TypeVar("Result")


class RunsHidden(LightComputeError):
    """This server shows no runs."""


class RunPages:
    """See the module docstring.

    Args:
        folder: Where runs lie, as `run.dir`; None: no runs are shown.
        models: Finds the models that the server offers.
    """

    def __init__(self, folder: Path | None, *, models: Callable[[], Awaitable[list[FoundModel]]]) -> None:
        self._folder, self._models = folder, models
        self._watch = None if folder is None else RunWatch(folder)
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reading runs")
        self._waiting = 0

    async def listed(self, *, since: str | None) -> dict[str, Any]:
        """GET /v1/runs."""
        found = await self._models() if self._folder is not None else []

        def read(watch: RunWatch) -> dict[str, Any]:
            models = _models_of(watch, found)
            version = f"{watch.version()}-{zlib.crc32(repr(sorted(models.items())).encode()):08x}"
            if version == since:
                return {"version": version, "unchanged": True}
            runs = [facts | {"model": models.get(facts["name"])} for facts in watch.listed()]
            return {"version": version, "runs": runs}

        return await self._read(read)

    async def curves(
        self, names: Sequence[str], *, keys: Sequence[str], x: str, points: int, since: str | None
    ) -> dict[str, Any]:
        """GET /v1/runs/curves."""

        def read(watch: RunWatch) -> dict[str, Any]:
            version = watch.version(names)
            if version == since:
                return {"version": version, "unchanged": True}
            return {"version": version} | watch.curves(names, keys=keys, x=x, points=points)

        return await self._read(read)

    async def one(self, name: str) -> dict[str, Any]:
        """GET /v1/runs/one."""
        found = await self._models() if self._folder is not None else []
        return await self._read(lambda watch: watch.described(name) | {"model": _models_of(watch, found).get(name)})

    async def _read(self, read: Callable[[RunWatch], Result]) -> Result:
        watch = self._watch
        if watch is None:
            raise RunsHidden(
                "This server shows no runs.",
                needed="a folder of runs, and an API key where others can reach the server",
            )
        if self._waiting >= MOST_WAITING:
            raise Busy(f"{self._waiting} questions about runs are waiting.", retry_after_s=2)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reading, read, watch)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Read no more."""
        self._reading.shutdown(wait=False, cancel_futures=True)


def _models_of(watch: RunWatch, found: Sequence[FoundModel]) -> dict[str, str]:
    """Name of a run -> name of the model that lies in its folder."""
    by_folder: dict[Path, str] = {}
    for model in found:
        real = model.directory.resolve()
        run = (
            real.parent.parent if real.parent.name == "checkpoints" else real.parent
        )  # RUN/checkpoints/STEP, RUN/final
        by_folder |= {place: model.name for place in (real, run) if place not in by_folder}
    paths = {name: run.path.resolve() for name, run in watch.runs().items()}
    return {name: by_folder[path] for name, path in paths.items() if path in by_folder}
