"""Settings of corpora of any size: rows of JSONL, Parquet or Arrow files, token shards of other projects, mixtures.

Not here: settings of corpora that are read whole (`settings`). Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from litgpt_core.data.setting_checks import (
    common_problems,
    engine_problems,
    packing_problems,
    raise_all,
    stream_problems,
)

OrderKind = Literal["full", "blocks"]
PackingKind = Literal["windows", "best_fit"]
RowsKind = Literal["jsonl", "parquet", "arrow"]
EngineKind = Literal["local", "datatrove"]
ExecutorKind = Literal["local", "slurm", "ray"]
NearDuplicates = Literal["keep", "remove"]
TokenFormat = Literal["auto", "prepared", "nanogpt", "llmc", "megatron", "olmo", "datatrove"]
TOKEN_FORMATS: tuple[TokenFormat, ...] = ("auto", "prepared", "nanogpt", "llmc", "megatron", "olmo", "datatrove")


@dataclass(frozen=True, kw_only=True)
class RowsSettings:
    """Documents in the rows of files of any size, read in constant memory."""

    kind: RowsKind = "jsonl"
    """What the files are: jsonl (also .gz, .bz2, .xz, .zst), parquet, or arrow (Hugging Face data sets on disk)."""

    name: str = "rows"
    """First part of the prepared folder's name."""

    path: str
    """A file or a folder, relative to the current folder; or an address: s3://, gs://, hf://datasets/, https://."""

    glob: str = "**/*"
    """Which files of a folder are read; no effect when `path` is a file. Compressed files match without .gz, .zst."""

    text_key: str = "text"
    """Key or column of the text in each row."""

    chunk_bytes: int = 0
    """Bytes of input that make one shard; 0: a 64th of the corpus, within 8 MB and 256 MB."""

    workers: int = 0
    """Processes that tokenize; 0: one per core. The bytes written do not depend on it."""

    fast_tokenizer: Literal["never", "auto"] = "never"
    """`auto`: gigatoken tokenizes, if it is installed and gives the same ids on a sample."""

    engine: EngineKind = "local"
    """What runs them: `local`, or `datatrove`, in an environment of its own; the bytes written are the same."""

    executor: ExecutorKind = "local"
    """Where datatrove's tasks run: on this machine, as job arrays of SLURM, or on a Ray cluster."""

    slurm: dict[str, Any] = field(default_factory=dict)
    """Options of sbatch for executor=slurm: partition, time, account, cpus_per_task, mem_per_cpu_gb, ..."""

    ray: dict[str, Any] = field(default_factory=dict)
    """Options for executor=ray: address (none: a cluster of this machine), cpus_per_task, mem_per_cpu_gb, workers."""

    near_duplicates: NearDuplicates = "keep"
    """`remove`: of documents that are nearly equal (MinHash over five words) one is kept; needs engine=datatrove."""

    order: OrderKind = "full"
    """Order of training windows: `full` mixes all of them; `blocks` mixes blocks of 64 MB, for disks and buckets."""

    packing: PackingKind = "windows"
    """Training rows: `windows` of the stream of tokens; `best_fit`: whole documents that do not see each other."""

    verify: Literal["stat", "full"] = "stat"
    """`stat`: files whose size and times are those of the last reading are not read again; `full`: always read."""

    cache_dir: str = "data"
    """Where prepared folders go: relative to the project folder (not to the current one), or absolute."""

    val_fraction: float = 0.01
    """Probability that a document is held out for validation, in (0, 0.5]; lowered to keep within `val_bytes`."""

    val_bytes: int = 64_000_000
    """About how many bytes of input are held out at most."""

    split_seed: int = 1337
    """Decides which documents are held out."""

    def __post_init__(self) -> None:
        problems = common_problems(self, kind=self.kind) + stream_problems(self) + engine_problems(self)
        if self.kind not in ("jsonl", "parquet", "arrow"):
            problems.append(f"kind={self.kind!r} must be jsonl, parquet or arrow")
        if self.path in ("", "???"):
            problems.append("path is missing; set data.path=FILE_OR_FOLDER")
        if not self.glob:
            problems.append("glob is empty; set e.g. data.glob='**/*'")
        if not self.text_key:
            problems.append("text_key is empty; set e.g. data.text_key=text")
        raise_all(problems, kind=self.kind)


@dataclass(frozen=True, kw_only=True)
class TokensSettings:
    """Token shards that exist: a prepared folder, or shards that another project wrote. Nothing is copied."""

    kind: Literal["tokens"] = "tokens"
    """Which reader is used; fixed for this class."""

    name: str = "tokens"
    """First part of the name of the folder that describes the shards."""

    path: str
    """A folder of shards, one shard, or a prepared folder; relative to the current folder, or an address (s3://)."""

    format: TokenFormat = "auto"
    """auto: recognised; prepared, nanogpt, llmc (llm.c, modded-nanogpt), megatron, olmo (raw numbers), datatrove."""

    dtype: Literal["auto", "uint16", "uint32"] = "auto"
    """Width of the numbers of raw files (nanogpt, olmo, datatrove); auto: what the tokenizer's vocabulary needs."""

    order: OrderKind = "full"
    """Order of training windows: `full` mixes all of them; `blocks` mixes blocks of 64 MB, for disks and buckets."""

    packing: PackingKind = "windows"
    """Training rows: `windows` of the stream of tokens; `best_fit`: whole documents that do not see each other."""

    cache_bytes: int = 20_000_000_000
    """Of shards at an address: about how much of them is kept in `cache_dir`."""

    cache_dir: str = "data"
    """Where the folder that describes the shards goes: relative to the project folder, or absolute."""

    val_fraction: float = 0.01
    """Share of the tokens held out, from the end, where no shard is named after validation; in (0, 0.5]."""

    val_tokens: int = 10_000_000
    """At most so many tokens are held out."""

    split_seed: int = 1337
    """No effect: token shards are not sampled."""

    def __post_init__(self) -> None:
        problems = common_problems(self, kind="tokens")
        if self.path in ("", "???"):
            problems.append("path is missing; set data.path=FOLDER_OF_SHARDS")
        if self.format not in TOKEN_FORMATS:
            problems.append(f"format={self.format!r} must be one of {', '.join(TOKEN_FORMATS)}")
        if self.dtype not in ("auto", "uint16", "uint32"):
            problems.append(f"dtype={self.dtype!r} must be auto, uint16 or uint32")
        if self.order not in ("full", "blocks"):
            problems.append(f"order={self.order!r} must be 'full' or 'blocks'")
        problems += packing_problems(self)
        if self.cache_bytes < 1_000_000_000:
            problems.append(f"cache_bytes={self.cache_bytes} must be at least 1e9")
        if self.val_tokens < 2:
            problems.append(f"val_tokens={self.val_tokens} must be at least 2")
        raise_all(problems, kind="tokens")


@dataclass(frozen=True, kw_only=True)
class MixtureSettings:
    """Several prepared folders of text at once, with weights that may change during training."""

    kind: Literal["mixture"] = "mixture"
    """Which reader is used; fixed for this class."""

    name: str = "mixture"
    """First part of the name of the folder that describes the mixture."""

    sources: dict[str, str] = field(default_factory=dict)
    """Name of a source -> its prepared folder, as `lcp data` prints it, or the first part of its name in cache_dir."""

    weights: dict[str, float] = field(default_factory=dict)
    """Name of a source -> its share of the samples, in any unit; empty: in proportion to the tokens."""

    stages: list[dict[str, Any]] = field(default_factory=list)
    """Weights that replace `weights` for a while: {tokens: 2e9, weights: {web: 3, code: 1}}, then the next; the last
    one may leave out `tokens` and lasts to the end.
    """

    cycle: int = 4096
    """Samples in which every source has exactly its share."""

    order: OrderKind = "full"
    """Order of the windows of each source: `full` mixes all of them; `blocks` mixes blocks of 64 MB."""

    cache_dir: str = "data"
    """Where prepared folders are, and where the folder of the mixture goes: relative to the project folder."""

    val_fraction: float = 0.01
    """No effect: the validation splits of the sources are used."""

    split_seed: int = 1337
    """No effect."""

    def __post_init__(self) -> None:
        problems = common_problems(self, kind="mixture")
        if not self.sources:
            problems.append("sources is empty; set e.g. data.sources.web=FOLDER data.sources.code=FOLDER")
        problems += _weight_problems("weights", self.weights, self.sources) if self.weights else []
        for number, stage in enumerate(self.stages):
            problems += self._stage_problems(number, stage)
        if not 1 <= self.cycle <= 1 << 20:
            problems.append(f"cycle={self.cycle} must be from 1 to 1,048,576 samples")
        if self.order not in ("full", "blocks"):
            problems.append(f"order={self.order!r} must be 'full' or 'blocks'")
        raise_all(problems, kind="mixture")

    def _stage_problems(self, number: int, stage: dict[str, Any]) -> list[str]:
        where, last = f"stages[{number}]", number == len(self.stages) - 1
        if not isinstance(stage, dict) or set(stage) - {"tokens", "weights"} or "weights" not in stage:
            return [f"{where} must hold weights, and tokens: {{tokens: 2e9, weights: {{web: 3, code: 1}}}}"]
        problems = _weight_problems(f"{where}.weights", stage["weights"], self.sources)
        tokens = stage.get("tokens")
        if not last and tokens is None:
            problems.append(f"{where}.tokens is missing: only the last stage lasts to the end")
        if tokens is not None and not (isinstance(tokens, int | float) and tokens >= 1):
            problems.append(f"{where}.tokens={tokens!r} must be a number of tokens")
        return problems


def _weight_problems(where: str, weights: Any, sources: dict[str, str]) -> list[str]:
    if not isinstance(weights, dict):
        return [f"{where} must be numbers by name of source: {{web: 3, code: 1}}"]
    unknown = sorted(set(weights) - set(sources))
    problems = [f"{where} names {name!r}, which is not in sources" for name in unknown]
    numbers = list(weights.values())
    if not all(isinstance(number, int | float) and not isinstance(number, bool) and number >= 0 for number in numbers):
        problems.append(f"{where} must be numbers of 0 or more")
    elif not sum(numbers) > 0:
        problems.append(f"{where} must have a number above 0")
    return problems
