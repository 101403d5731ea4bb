"""Several prepared folders as one: a folder that lists their shards, and batches in the order of a mixture."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from litgpt_core.core.errors import DataError
from litgpt_core.data.mixture import MixtureOrder, Stage, quotas
from litgpt_core.data.prepared import OrderedRows, folder_problem, read_meta
from litgpt_core.data.prepared_folder import content_settings, find_or_make, fingerprint_of, write_meta
from litgpt_core.data.settings import cache_folder
from litgpt_core.data.stream.chunk_shards import SIDES
from litgpt_core.data.stream.finish import sampled_references
from litgpt_core.data.stream.manifest import STREAM_FORMAT, Shard, read_manifest, write_manifest
from litgpt_core.data.stream_settings import MixtureSettings
from litgpt_core.data.text_data import TextData
from litgpt_core.tokenizers.settings import TokenizerSettings

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from litgpt_core.data.dataset import Batch


@dataclass(frozen=True)
class MixtureData(TextData):
    """A folder that describes a mixture; the shards are those of its sources, which must stay where they are."""

    def source_shards(self) -> dict[str, list[Shard]]:
        """Name of a source -> the shards of its training split."""
        found: dict[str, list[Shard]] = {name: [] for name in self.meta["mixture"]["names"]}
        for entry in read_manifest(self.directory)["shards"]["train"]:
            shard = Shard(path=self.directory / entry["file"], offset=entry["offset"], tokens=entry["tokens"])
            found[entry["source"]].append(shard)
        return found

    def mixture_order(self, *, block_size: int, seed: int) -> MixtureOrder:
        """Which source each sample of `block_size` tokens comes from."""
        facts = self.meta["mixture"]
        cycle = int(facts["cycle"])
        stages = [
            Stage(
                quotas=tuple(stage["quotas"]),
                cycles=None if stage["tokens"] is None else max(1, math.ceil(stage["tokens"] / (block_size * cycle))),
            )
            for stage in facts["stages"]
        ]
        return MixtureOrder(stages, cycle=cycle, seed=seed)

    def passes(self, *, samples: int, block_size: int, seed: int) -> dict[str, float]:
        """Name of a source -> how often its training tokens are read in a run of `samples` samples."""
        counts = self.mixture_order(block_size=block_size, seed=seed).counts(samples)
        totals = {name: sum(each.tokens for each in shards) for name, shards in self.source_shards().items()}
        return {name: int(count) * block_size / totals[name] for name, count in zip(totals, counts, strict=True)}

    def train_batches(self, *, block_size: int, global_batch_size: int, **rows: Unpack[OrderedRows]) -> Dataset[Batch]:
        """Windows of all sources as (inputs, targets), in the order of the mixture."""
        from litgpt_core.data.mixture_dataset import MixtureBatches

        return MixtureBatches(
            list(self.source_shards().values()),
            order=self.mixture_order(block_size=block_size, seed=rows["seed"]),
            dtype=self.dtype,
            block_size=block_size,
            first_id=self.window_start,
            window_order=self.order,
            **rows,
        )


def _source(data: MixtureSettings, given: str) -> TextData:
    """The prepared folder that a source names: a path, or the first part of a name in `cache_dir`."""
    path = Path(given).expanduser()
    cache = cache_folder(data)
    found = [each for each in (path, cache / given) if (each / "meta.json").is_file()][:1]
    if not found:
        found = [each.parent for each in sorted(cache.glob(f"{given}-*/meta.json")) if not folder_problem(each.parent)]
    if len(found) != 1:
        there = ", ".join(each.name for each in found) or ", ".join(
            each.parent.name for each in sorted(cache.glob("*/meta.json"))[:10]
        )
        raise DataError(
            f"data.sources: {given!r} names {len(found)} prepared folders; there is: {there or 'nothing'} in {cache}",
            needed="one prepared folder of text for each source",
            fix="its path, as `lcp data ...` prints it",
        )
    meta = read_meta(found[0])
    if meta["kind"] in ("chat", "mixture"):
        raise DataError(
            f"{found[0]} is of the kind {meta['kind']}", needed="prepared folders of text", fix="its own sources"
        )
    return TextData(found[0].absolute(), meta)


def prepare_mixture(data: MixtureSettings, settings: TokenizerSettings) -> Path:
    """The folder that describes a mixture, found or made; the tokenizer is that of the sources.

    Raises:
        DataError: A source is missing, or two have different tokenizers.
    """
    sources = {name: _source(data, given) for name, given in data.sources.items()}
    _refuse_different_tokenizers(sources)
    first = next(iter(sources.values()))
    stages = _stages(data, sources)
    content = {
        "format_version": STREAM_FORMAT,
        "data": {key: value for key, value in content_settings(data).items() if key != "sources"},
        "sources": [[name, source.fingerprint] for name, source in sources.items()],
        "stages": stages,
    }
    fingerprint = fingerprint_of(content)

    def build(work: Path) -> None:
        shutil.copytree(first.tokenizer_dir, work / "tokenizer")
        shards = {side: [_entry(s, name) for name, d in sources.items() for s in d.shards(side)] for side in SIDES}
        parts = {side: [s for d in sources.values() for s in d.shards(side)] for side in SIDES}
        manifest = {"format_version": STREAM_FORMAT, "fingerprint": fingerprint, "dtype": first.dtype, "shards": shards}
        tokenizer = {key: value for key, value in first.meta["tokenizer"].items() if key != "files"}
        meta: dict[str, Any] = {
            "format_version": STREAM_FORMAT,
            "name": data.name,
            "kind": data.kind,
            "data_settings": content_settings(data),
            "manifest_sha256": write_manifest(work, manifest),
            "mixture": {"names": list(sources), "cycle": data.cycle, "stages": stages},
            "splits": {side: _added(sources, side) for side in SIDES},
            "dtype": first.dtype,
            "append_eos": True,
            "tokenizer": tokenizer,
            "reference_losses": sampled_references(parts, dtype=first.dtype, vocab_size=first.vocab_size),
        }
        write_meta(work, meta, settings=settings, fingerprint=fingerprint)

    return find_or_make(data, fingerprint=fingerprint, build=build)


def _refuse_different_tokenizers(sources: dict[str, TextData]) -> None:
    kinds = {
        name: (data.meta["tokenizer"]["fingerprint"], data.dtype, data.window_start) for name, data in sources.items()
    }
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{name}: {found[0][:12]} as {found[1]}" for name, found in kinds.items())
        raise DataError(
            f"data.sources were tokenized differently ({listed})",
            needed="one tokenizer for all sources",
            fix="train it on one, then prepare the others with tokenizer=pretrained tokenizer.path=FOLDER/tokenizer",
        )


def _stages(data: MixtureSettings, sources: dict[str, TextData]) -> list[dict[str, Any]]:
    """Tokens and quotas of each stage; without stages, one that lasts to the end."""
    weights = data.weights or {name: float(source.train_tokens) for name, source in sources.items()}
    given = data.stages or [{"weights": weights}]
    return [
        {
            "tokens": stage.get("tokens"),
            "quotas": list(quotas([float(stage["weights"].get(name, 0)) for name in sources], cycle=data.cycle)),
        }
        for stage in given
    ]


def _entry(shard: Shard, source: str) -> dict[str, Any]:
    return {"file": str(shard.path.absolute()), "offset": shard.offset, "tokens": shard.tokens, "source": source}


def _added(sources: dict[str, TextData], side: str) -> dict[str, int]:
    facts = [source.meta["splits"][side] for source in sources.values()]
    keys = ("documents", "bytes", "tokens")
    return {key: sum(int(each[key]) for each in facts) for key in keys if all(key in each for each in facts)}
