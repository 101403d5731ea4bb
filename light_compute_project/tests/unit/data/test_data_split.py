"""The split: near-duplicates stay together, input order is irrelevant, tails are nanoGPT's, chunks join to the text."""

from __future__ import annotations

import random

import numpy as np
import pytest

from litgpt_core.core.errors import DataError
from litgpt_core.data.document import Document, make_corpus, source_facts, utf8_bytes
from litgpt_core.data.duplicates import HASHES, minhash, near_duplicate_groups
from litgpt_core.data.settings import TextSettings
from litgpt_core.data.split import CHUNKS, Split, cut_chunks, split_corpus


def lines(seed: int, count: int = 60) -> list[str]:
    draw = random.Random(seed)
    return [f"    value_{draw.randrange(10**9)} = compute({draw.randrange(10**9)})" for _ in range(count)]


def document(name: str, content: list[str]) -> Document:
    return Document("s", name, "\n".join(content) + "\n")


def split(documents: list[Document], **changes: object) -> Split:
    corpus = make_corpus(documents, [source_facts("s", documents)])
    return split_corpus(corpus, TextSettings(**{"path": "x", "val_fraction": 0.2, **changes}))


def many(count: int = 60) -> list[Document]:
    return [document(f"f{i:03d}", lines(i)) for i in range(count)]


def test_estimates_follow_the_true_similarity() -> None:
    base = lines(0, 300)
    for shared in (0, 100, 200, 290):
        other = base[:shared] + lines(1, 300 - shared)
        first, second = minhash(["\n".join(base), "\n".join(other)])
        true = shared / (600 - shared)
        assert abs((first == second).mean() - true) < 4 * np.sqrt(true * (1 - true) / HASHES) + 0.01


def test_signatures_ignore_indentation_blank_lines_order_and_repeats() -> None:
    base = lines(3)
    shuffled = ["\t" + line.strip() + "  \r\n" for line in reversed(base)] * 2
    first, second = minhash(["\n".join(base), "\n\n".join(shuffled)])
    assert np.array_equal(first, second)


def test_groups_are_the_planted_ones() -> None:
    texts = ["\n".join(lines(i)) for i in range(40)]
    texts[7] = "\n".join([*lines(3)[:55], *lines(107, 5)])  # similarity 55 / 65
    texts[20] = texts[3] + "\n# a comment\n"
    groups = near_duplicate_groups(texts).tolist()
    expected = list(range(40))
    expected[7] = expected[20] = 3
    assert groups == expected
    assert near_duplicate_groups([]).tolist() == []
    assert near_duplicate_groups(["", " \n", "x"]).tolist() == [0, 0, 2]


def test_banding_finds_what_comparing_all_pairs_finds() -> None:
    draw = random.Random(0)
    texts = []
    for i in range(120):
        base = lines(i % 30)
        texts.append("\n".join(base[: draw.randrange(20, 60)] + lines(1000 + i, 10)))
    signatures = minhash(texts)
    similar = (signatures[:, None] == signatures[None]).mean(axis=2) >= 0.5
    groups = near_duplicate_groups(texts)
    first, second = np.nonzero(np.triu(similar, 1))
    assert len(first) > 50
    assert (groups[first] == groups[second]).all()


@pytest.mark.parametrize("seed", range(10))
def test_near_duplicates_never_straddle_the_split(seed: int) -> None:
    documents = many(30)
    for i in range(30):
        documents.append(document(f"copy{i:03d}", [*lines(i)[3:], f"# copy {i}"]))
    result = split(documents, split_seed=seed)
    held_out = {d.name[-3:] for d in result.val}
    assert held_out
    assert not held_out & {d.name[-3:] for d in result.train}
    assert (result.groups, result.near_duplicate_groups, result.near_duplicate_documents) == (30, 30, 60)


def test_order_of_the_input_changes_nothing_and_the_seed_does() -> None:
    documents = many()
    shuffled = random.Random(1).sample(documents, len(documents))
    assert split(documents) == split(shuffled)
    assert split(documents).sha256() != split(documents, split_seed=2).sha256()


def test_the_rule_is_pinned() -> None:
    """If this fails, the same corpus is split differently: raise `split.SPLIT_RULE` and pin the new result."""
    result = split(many(20))
    assert [d.name for d in result.val] == ["f001", "f009", "f015", "f018", "f019"]


def test_sides_have_their_share_and_all_documents() -> None:
    documents = many(200)
    result = split(documents, val_fraction=0.1)
    assert sorted([*result.train, *result.val], key=lambda d: d.name) == documents
    assert 0.1 <= utf8_bytes(result.val) / utf8_bytes(documents) < 0.12
    assert result.append_eos


def test_adding_a_document_does_not_deal_the_others_anew() -> None:
    before = {d.name for d in split(many(100)).val}
    after = {d.name for d in split([*many(100), document("new", lines(999))]).val}
    assert len(before & after) >= len(before) - 1


def test_a_giant_document_is_not_held_out() -> None:
    for seed in range(20):
        result = split([*many(10), document("giant", lines(77, 5000))], split_seed=seed)
        assert "giant" in {d.name for d in result.train}
        assert result.val


def test_two_documents_give_one_to_each_side() -> None:
    result = split([document("a", lines(0, 80)), document("b", lines(1, 40))])
    assert ([d.name for d in result.train], [d.name for d in result.val]) == (["a"], ["b"])


@pytest.mark.parametrize("length", [10, 101, 111_539])
def test_tail_is_nanogpts(length: int) -> None:
    text = "".join(chr(97 + i % 26) for i in range(length))
    result = split([Document("s", "one", text)], split="tail", val_fraction=0.1)
    assert result.train[0].text == text[: int(length * 0.9)]
    assert result.train[0].text + result.val[0].text == text
    assert not result.append_eos


def test_tail_of_shakespeare_has_the_published_sizes() -> None:
    result = split([Document("s", "one", "x" * 1_115_394)], split="tail", val_fraction=0.1)
    assert (len(result.train[0].text), len(result.val[0].text)) == (1_003_854, 111_540)


@pytest.mark.parametrize("joint", ["\n\n", "\n", " ", "\r\n"])
def test_chunks_join_to_the_text(joint: str) -> None:
    text = joint.join(line for i in range(100) for line in lines(i))
    chunks = cut_chunks(Document("s", "one", text))
    assert "".join(chunk.text for chunk in chunks) == text
    assert 0.9 * CHUNKS <= len(chunks) <= CHUNKS
    assert all(chunk.text.endswith(joint) for chunk in chunks[:-1]) or joint == " "
    assert [chunk.name for chunk in chunks] == sorted(chunk.name for chunk in chunks)


def test_a_single_file_is_held_out_in_chunks() -> None:
    text = "\n".join(line for i in range(100) for line in lines(i))
    result = split([Document("s", "one", text)], val_fraction=0.1)
    assert sum(len(d.text) for d in [*result.train, *result.val]) == len(text)
    assert 0.1 <= utf8_bytes(result.val) / len(text) < 0.12
    assert 5 < len(result.val) <= 20
    assert all(d.text in text for d in [*result.train, *result.val])
    assert len(result.train) <= len(result.val) + 1  # neighbours on one side are joined again


def test_what_cannot_be_split_says_the_numbers() -> None:
    with pytest.raises(DataError, match=r"1 file\(s\), 11 bytes.*single chunk"):
        split([Document("s", "one", "hello world")])
    with pytest.raises(DataError, match="near-duplicates of each other"):
        split([Document("s", "one", "the same line\n" * 1000)])
    with pytest.raises(DataError, match="leave one split"):
        split([Document("s", "one", "a")], split="tail")
    with pytest.raises(DataError, match="2 files"):
        split(many(2), split="tail")


# --- documents that share a menu


def pages(count: int, *, menu: int, own: int = 10, first: int = 0) -> list[Document]:
    shared = [f"Menu entry {first + i}" for i in range(menu)]
    return [document(f"page{first + i:03d}", [*shared, *lines(first + i, own)]) for i in range(count)]


@pytest.mark.parametrize(("count", "menu"), [(30, 15), (5, 40), (12, 40), (30, 200)])
def test_pages_that_share_a_menu_are_divided(count: int, menu: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        result = split(pages(count, menu=menu), val_fraction=0.2)
    assert (result.groups, result.near_duplicate_groups, result.rule) == (count, 0, 2)
    assert 0.15 < utf8_bytes(result.val) / utf8_bytes([*result.train, *result.val]) < 0.35
    assert f"alike only by {menu} lines" in caplog.text


def test_copies_among_such_pages_stay_together() -> None:
    documents = pages(20, menu=40)
    documents += [Document("s", f"copy{i}", document.text + "new line\n") for i, document in enumerate(documents[:4])]
    result = split(documents)
    assert (result.groups, result.near_duplicate_groups, result.near_duplicate_documents) == (20, 4, 8)
    held_out = {document.text.splitlines()[-2] for document in result.val}
    assert not held_out & {document.text.splitlines()[-2] for document in result.train}


def test_two_sites_with_a_menu_each_are_divided_both() -> None:
    result = split([*pages(12, menu=40), *pages(12, menu=40, first=100)])
    assert result.groups == 24 and 0.15 < utf8_bytes(result.val) / utf8_bytes([*result.train, *result.val]) < 0.3


def test_a_small_group_among_many_documents_is_not_compared_again() -> None:
    result = split([*many(100), *pages(6, menu=40)])
    assert (result.groups, result.near_duplicate_documents, result.rule) == (101, 6, 1)


def test_grouping_can_be_switched_off() -> None:
    copies = [document(f"copy{i}", lines(0)) for i in range(20)]
    with pytest.raises(DataError, match=r"data\.group_near_duplicates=false"):
        split(copies)
    result = split(copies, group_near_duplicates=False)
    assert (len(result.train), len(result.val), result.groups) == (16, 4, 20)


def test_validation_far_from_its_share_is_said(caplog: pytest.LogCaptureFixture) -> None:
    copies = [document(f"copy{i}", [*lines(0), f"{i}"]) for i in range(4)]
    with caplog.at_level("WARNING"):
        split([*copies, document("other", lines(5, 8))], val_fraction=0.3)
    assert "not the 30 % of data.val_fraction: 4 documents are near-duplicates" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING"):
        split(many(100))
    assert not caplog.text
