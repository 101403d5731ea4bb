"""What datatrove's tasks are given: the chunks of a corpus and how each becomes a shard, as a JSON file that the
processes of both environments read. Needs numpy at most: it is imported in datatrove's own environment, too.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litgpt_core.core.files import write_json
from litgpt_core.core.parsing import parse_json, read_bytes
from litgpt_core.data.stream.chunk_shards import ShardJob
from litgpt_core.data.stream.chunks import Chunk, Range
from litgpt_core.data.stream.inputs import InputFile
from litgpt_core.data.stream.manifest import MAX_MANIFEST_BYTES
from litgpt_core.data.stream.reading import reader_of
from litgpt_core.data.stream_settings import RowsSettings

FOLDER = "datatrove"
"""In the working folder: plan, logs, completion markers, signatures."""
ERRORS = "errors"
"""In it: what a task had to say to the person at the keyboard, as task-NNNNN.json."""


@dataclass(frozen=True, kw_only=True)
class DatatrovePlan:
    """A preparation as tasks: task k makes the shard of chunk k."""

    folder: Path
    data: RowsSettings
    job: ShardJob
    chunks: list[Chunk]
    workers: int
    """Tasks at a time on this machine."""

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / "plan.json"

    def write(self) -> None:
        """Write the file."""
        files = list(dict.fromkeys(part.file for chunk in self.chunks for part in chunk.ranges))
        number = {file: at for at, file in enumerate(files)}
        content = {
            "data": dataclasses.asdict(self.data),
            "job": {
                "work": str(self.job.work),
                "share": self.job.share,
                "special_names": list(self.job.special_names),
            },
            "workers": self.workers,
            "files": [[file.name, file.address, file.bytes, *file.stamp] for file in files],
            "chunks": [[[number[part.file], part.begin, part.end] for part in chunk.ranges] for chunk in self.chunks],
        }
        write_json(self.path, content, indent=None)

    @classmethod
    def read(cls, path: Path) -> DatatrovePlan:
        """What `write` wrote."""
        raw = read_bytes(path, max_bytes=MAX_MANIFEST_BYTES)
        content: dict[str, Any] = parse_json(raw, max_bytes=MAX_MANIFEST_BYTES, max_values=MAX_MANIFEST_BYTES)
        data, job = RowsSettings(**content["data"]), content["job"]
        files = [
            InputFile(name=name, address=address, bytes=size, stamp=tuple(stamp))
            for name, address, size, *stamp in content["files"]
        ]
        chunks = [
            Chunk(number=n, ranges=tuple(Range(file=files[at], begin=begin, end=end) for at, begin, end in ranges))
            for n, ranges in enumerate(content["chunks"])
        ]
        shard_job = ShardJob(
            name=data.name,
            reader=reader_of(data),
            work=Path(job["work"]),
            share=job["share"],
            seed=data.split_seed,
            special_names=tuple(job["special_names"]),
            threads=1,
        )
        return cls(folder=path.parent, data=data, job=shard_job, chunks=chunks, workers=int(content["workers"]))
