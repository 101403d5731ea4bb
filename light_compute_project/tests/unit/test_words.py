"""Source code, tests and pages use the field's terms: words that were replaced do not come back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

RETIRED = {
    r"sittings?": "session or attempt",
    r"torn": "corrupted or incomplete",
    r"pieces?": "chunk, delta, token, segment or shard",
    r"checkpoints? in parts|parts of several processes": "sharded",
    r"first_alone|first_then_others": "rank_zero_first",
    r"dice": "rng",
    r"drawn? (?:a fresh|afresh|among|with seed|with the seed)": "sample",
    r"contestants?": "runner or entry",
    r"(?:model)?shelf": "ModelPool",
    r"suspects?|suspected": "likely causes",
    r"(?:is|are|was|were) (?:told|typed)": "reported, or given on the command line",
    r"stretch(?:es)?": "multi-step decode, segment or range",
    r"panels?": "packed weights",
    r"embedding tables?|tables? of embeddings": "embeddings",
    r"likeliest": "most probable, or greedy",
    r"lies? around": "found",
    r"had again": "reproduced",
    r"last words": "error output",
    r"(?:is|are|was|were) asked for": "requested",
    r"passed over": "skipped",
    r"beside (?:it|whatever|the|that|them)": "alongside, or concurrently",
    r"knocks? at": "entry point",
}
"""Pattern of whole words, in any case: the term to use."""

EXCEPTIONS = {
    "pieces?": (
        # SentencePiece's own term
        "light_compute_project/src/litgpt_core/export/huggingface/sentencepiece_json.py",
        "light_compute_project/src/litgpt_core/export/huggingface/vocabulary.py",
        "light_compute_project/src/litgpt_core/export/huggingface/added_tokens.py",
        "light_compute_project/tests/unit/export/test_export_added_tokens.py",
        "light_compute_project/tests/unit/export/test_export_tokenizers.py",
        "light_compute_project/src/litgpt_core/pure/vocabulary.py",
        "light_compute_project/src/litgpt_core/tokenizers/",
        "light_compute_project/tests/unit/tokenizers/",
        "light_compute_project/configs/tokenizer/sentencepiece.yaml",
    ),
    r"sittings?": (
        # the key that older records have
        "light_compute_project/src/litgpt_core/audit/",
        "light_compute_project/src/litgpt_core/search/sweep_folder.py",
        "light_compute_project/src/litgpt_core/training/record.py",
        "light_compute_project/tests/unit/audit/",
        "light_compute_project/tests/unit/search/test_search_sweep.py",
        "light_compute_project/docs/reproducibility.md",
    ),
    r"contestants?": (
        # a key of the records in metrics/
        "light_compute_project/benchmarks/",
        "light_compute_project/tests/unit/benchmarks/",
        "light_compute_project/tests/integration/test_benchmark.py",
    ),
    "panels?": (
        # of a web page, of a plot
        "light_compute_project/src/litgpt_core/serving/static/",
        "light_compute_project/docs/optim.md",
        "light_compute_project/docs/runs.md",
        "light_compute_project/src/litgpt_core/runs/plots.py",
        "light_compute_project/tests/unit/runs/",
    ),
}
"""Pattern: paths, or beginnings of paths, where the word is the field's own term."""

SUFFIXES = (".py", ".js", ".html", ".css", ".cpp", ".hpp", ".yaml")
FOLDERS = ("src", "configs", "scripts", "examples", "benchmarks", "tests")
RECORDS = ("log.md", "CHANGELOG.md")
"""Pages about the past, which is not rewritten."""


def selected() -> Iterator[Path]:
    """Code, configs, tests and pages, but this file and what is data of the past."""
    for folder in FOLDERS:
        for path in sorted((PROJECT / folder).rglob("*")):
            if path.suffix in SUFFIXES and path != Path(__file__).resolve() and "fixtures" not in path.parts:
                yield path
    pages = (PROJECT.parent / "README.md", *sorted(PROJECT.glob("*.md")), *sorted((PROJECT / "docs").glob("*.md")))
    yield from (page for page in pages if page.name not in RECORDS)


def findings(path: Path, *, place: str) -> list[str]:
    """`path:line: word: term to use` for every retired word in a file."""
    allowed = {word for word, places in EXCEPTIONS.items() if place.startswith(places)}
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for word, term in RETIRED.items():
            if word not in allowed and (match := re.search(rf"(?<![a-z])(?:{word})(?![a-z])", line, re.IGNORECASE)):
                found.append(f"{place}:{number}: {match[0]}: write {term}")
    return found


def test_retired_words_do_not_come_back() -> None:
    found = [line for path in selected() for line in findings(path, place=path.relative_to(PROJECT.parent).as_posix())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("def join_pieces(parts):", 1),
        ("class ModelShelf:", 1),
        ("the newest model that lies around, whose last file is torn", 2),
        ("a masterpiece; it was shattered", 0),
        ("logits -> sample -> token", 0),
    ],
)
def test_words_are_found_in_names_and_text(tmp_path: Path, line: str, expected: int) -> None:
    file = tmp_path / "some.py"
    file.write_text(f"{line}\n")
    assert len(findings(file, place="light_compute_project/src/litgpt_core/serving/some.py")) == expected


def test_a_term_of_the_field_is_allowed_where_it_is_one(tmp_path: Path) -> None:
    file = tmp_path / "some.py"
    file.write_text("pieces = processor.id_to_piece(ids)\n")
    assert findings(file, place="light_compute_project/src/litgpt_core/tokenizers/some.py") == []
    assert findings(file, place="light_compute_project/src/litgpt_core/serving/some.py")
