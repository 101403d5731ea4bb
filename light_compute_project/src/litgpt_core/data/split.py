"""Which documents are held out for validation: a pure function of the corpus and the settings. No files, no tokens.

- `document`: a group of near-identical documents (`grouping`) is never divided between the splits. Groups are visited
  in the order of a seeded hash of their contents until validation has its share of the bytes; a group that would take
  it past `OVERSHOOT` times the share is skipped. A single file is first cut into about `CHUNKS` chunks at blank lines,
  and adjacent chunks in the same split are joined again.
- `tail`: the last characters of a single file, as in nanoGPT; nothing is grouped.

The hash of a group depends only on its own contents and the seed, so that adding a document does not reassign others.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import time
from collections import Counter
from dataclasses import dataclass

from litgpt_core.core.errors import DataError
from litgpt_core.data.document import Corpus, Document, documents_sha256, utf8_bytes
from litgpt_core.data.duplicates import Grouping, group_documents
from litgpt_core.data.settings import DEFAULT_SPLIT_SEED, CorpusSettings, PythonSourceSettings, SplitKind

logger = logging.getLogger(__name__)

SPLIT_RULE = 1
"""Raise this when the same corpus would be split differently; it is part of the prepared folder's fingerprint."""

OWN_LINES_RULE = 2
"""The rule of a split in which a large group was divided by its documents' own lines (`grouping`)."""

OVERSHOOT = 1.5
CHUNKS = 200
_SHORTEST_CHUNK = 200  # characters


@dataclass(frozen=True, kw_only=True)
class Split:
    """The two splits, each sorted by (source, name), and statistics of the grouping."""

    kind: SplitKind
    train: tuple[Document, ...]
    val: tuple[Document, ...]
    append_eos: bool
    """Whether each document is followed by the end-of-document id; not with `tail`: the two splits are one text."""
    groups: int
    """Groups, single documents included."""
    near_duplicate_groups: int
    """Groups of two or more documents."""
    near_duplicate_documents: int
    """Documents in these groups."""
    rule: int = SPLIT_RULE
    """`SPLIT_RULE`, or `OWN_LINES_RULE`."""

    def sha256(self) -> str:
        """SHA-256 (hex) over the documents of both splits."""
        sides = f"train {documents_sha256(self.train)} val {documents_sha256(self.val)}"
        return hashlib.sha256(sides.encode()).hexdigest()


def split_corpus(corpus: Corpus, data: CorpusSettings) -> Split:
    """Divide the corpus into training and validation.

    Raises:
        DataError: `tail` with several files, or a corpus that gives no two non-empty splits.
    """
    kind: SplitKind = "document" if isinstance(data, PythonSourceSettings) else data.split
    if kind == "tail":
        if data.split_seed != DEFAULT_SPLIT_SEED:
            logger.warning("data: split_seed=%d has no effect with split=tail", data.split_seed)
        return _split_tail(corpus, val_fraction=data.val_fraction)
    start = time.perf_counter()
    split = _split_documents(corpus, data)
    logger.info(
        "data %s: %s groups (%d of near-duplicates, with %d documents) into train %.3g MB and val %.3g MB, in %.1f s",
        data.name,
        f"{split.groups:,}",
        split.near_duplicate_groups,
        split.near_duplicate_documents,
        utf8_bytes(split.train) / 1e6,
        utf8_bytes(split.val) / 1e6,
        time.perf_counter() - start,
    )
    _warn_of_share(split, data)
    return split


def _warn_of_share(split: Split, data: CorpusSettings) -> None:
    """Say when validation is far from its share, which groups or large documents cause."""
    total = utf8_bytes(split.train) + utf8_bytes(split.val)
    share = utf8_bytes(split.val) / total
    if not data.val_fraction / 2 <= share <= 2 * data.val_fraction:
        logger.warning(
            "data %s: validation has %.2g %% of the bytes, not the %.2g %% of data.val_fraction: %s",
            data.name,
            100 * share,
            100 * data.val_fraction,
            f"{split.near_duplicate_documents:,} documents are near-duplicates, which stay together "
            "(data.group_near_duplicates=false divides them)"
            if split.near_duplicate_groups
            else f"there are only {split.groups:,} documents, of different sizes",
        )


def _split_tail(corpus: Corpus, *, val_fraction: float) -> Split:
    if len(corpus.documents) != 1:
        raise DataError(
            f"data.split=tail with {len(corpus.documents)} files or documents",
            needed="a single one",
            fix="data.split=document",
        )
    (document,) = corpus.documents
    cut = int(len(document.text) * (1 - val_fraction))
    train = Document(document.source, document.name, document.text[:cut])
    val = Document(document.source, document.name, document.text[cut:])
    if not train.text or not val.text:
        raise _too_small(corpus, f"{len(document.text)} characters leave one split empty", fix="a larger corpus")
    return Split(
        kind="tail",
        train=(train,),
        val=(val,),
        append_eos=False,
        groups=1,
        near_duplicate_groups=0,
        near_duplicate_documents=0,
    )


def _split_documents(corpus: Corpus, data: CorpusSettings) -> Split:
    single = len(corpus.documents) == 1
    documents = cut_chunks(corpus.documents[0]) if single else list(corpus.documents)
    documents.sort(key=lambda d: (d.source, d.name))
    grouping = group_documents(
        [document.text for document in documents],
        enabled=data.group_near_duplicates,
        largest_share=max(0.1, OVERSHOOT * data.val_fraction),
    )
    group_of = grouping.numbers
    raws = [document.text.encode("utf-8") for document in documents]
    sizes, digests = Counter[int](), dict[int, str]()
    for group, raw in zip(group_of, raws, strict=True):
        sizes[group] += len(raw)
        digest = hashlib.sha256(raw).hexdigest()
        digests[group] = min(digests.get(group, digest), digest)
    if len(sizes) < 2:
        raise _one_group(corpus, data, documents=len(documents))
    target = data.val_fraction * sum(sizes.values())
    held_out = _choose_held_out(sizes, digests, target=target, seed=data.split_seed)
    in_val = [group in held_out for group in group_of]
    members = Counter(group_of)
    val = _side(documents, in_val, held_out=True, join=single)
    _report_common_lines(grouping, val, data)
    return Split(
        kind="document",
        train=_side(documents, in_val, held_out=False, join=single),
        val=val,
        append_eos=True,
        groups=len(sizes),
        near_duplicate_groups=sum(count > 1 for count in members.values()),
        near_duplicate_documents=sum(count for count in members.values() if count > 1),
        rule=OWN_LINES_RULE if grouping.common_lines else SPLIT_RULE,
    )


def _report_common_lines(grouping: Grouping, val: tuple[Document, ...], data: CorpusSettings) -> None:
    if grouping.common_lines:
        share = grouping.common_share(document.text for document in val)
        (logger.warning if share > 0.5 else logger.info)(
            "data %s: %s documents are alike only by %s lines that most of them share, such as a menu; those lines do "
            "not keep documents together, and are %.0f %% of the validation text",
            data.name,
            f"{grouping.divided_documents:,}",
            f"{len(grouping.common_lines):,}",
            100 * share,
        )


def _choose_held_out(sizes: Counter[int], digests: dict[int, str], *, target: float, seed: int) -> set[int]:
    """The groups that are held out: at least one, never all."""

    def split_hash(group: int) -> str:
        return hashlib.sha256(f"{seed}:{digests[group]}".encode()).hexdigest()

    held_out: set[int] = set()
    total = 0
    for group in sorted(sizes, key=split_hash):
        if total >= target or len(held_out) == len(sizes) - 1:
            break
        if total + sizes[group] <= OVERSHOOT * target:
            held_out.add(group)
            total += sizes[group]
    return held_out or {min(sizes, key=lambda group: (sizes[group], split_hash(group)))}


def _side(documents: list[Document], in_val: list[bool], *, held_out: bool, join: bool) -> tuple[Document, ...]:
    """The documents of one split; with `join`, each run of adjacent chunks becomes one document."""
    if not join:
        return tuple(document for document, in_side in zip(documents, in_val, strict=True) if in_side is held_out)
    runs = itertools.groupby(zip(documents, in_val, strict=True), key=lambda pair: pair[1])
    joined = [[document for document, _ in pairs] for in_side, pairs in runs if in_side is held_out]
    return tuple(Document(run[0].source, run[0].name, "".join(chunk.text for chunk in run)) for run in joined)


def cut_chunks(document: Document) -> list[Document]:
    """Cut one text into at most about `CHUNKS` chunks that join to exactly the text, preferably at blank lines.

    Each cut is at the first blank line after an even division, else at the first newline, else at the division itself.
    A text of less than two shortest chunks is not cut.
    """
    text = document.text
    chunks = min(CHUNKS, len(text) // _SHORTEST_CHUNK)
    step = len(text) // max(chunks, 1)
    cuts = [0]
    for i in range(1, chunks):
        even, limit = i * step, (i + 1) * step
        if even <= cuts[-1]:
            continue
        blank, newline = text.find("\n\n", even, limit), text.find("\n", even, limit)
        cuts.append(blank + 2 if blank >= 0 else newline + 1 if newline >= 0 else even)
    bounds = [*cuts, len(text)]
    named = enumerate(itertools.pairwise(bounds))
    return [Document(document.source, f"{document.name}#{i:04d}", text[a:b]) for i, (a, b) in named if b > a]


def _one_group(corpus: Corpus, data: CorpusSettings, *, documents: int) -> DataError:
    several = f"its {documents} documents are near-duplicates of each other"
    if len(corpus.documents) > 1:
        return _too_small(corpus, several, fix="data.group_near_duplicates=false, or documents that differ")
    characters = len(corpus.documents[0].text)
    held_out = characters - int(characters * (1 - data.val_fraction))
    helps = not isinstance(data, PythonSourceSettings) and held_out >= 2 and characters - held_out >= 2
    tail = "data.split=tail to hold out its end, or " if helps else ""
    repeated = "it repeats itself: all chunks of it are near-duplicates of each other"
    return _too_small(corpus, repeated if documents > 1 else "it is a single chunk", fix=f"{tail}a larger corpus")


def _too_small(corpus: Corpus, what: str, *, fix: str) -> DataError:
    return DataError(
        f"the corpus ({len(corpus.documents)} file(s), {utf8_bytes(corpus.documents):,} bytes) cannot be split: {what}",
        needed="at least two different documents, or one file of some hundred characters",
        fix=fix,
    )
