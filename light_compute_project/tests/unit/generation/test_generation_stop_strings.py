"""A text ends at its first stop string, however it was split."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litgpt_core.generation.stop_strings import StopStrings


def before_stops(text: str, stops: list[str]) -> str:
    """Character by character: the first moment at which the text ends with a stop; the longest of those."""
    for end in range(len(text) + 1):
        sizes = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if sizes:
            return text[: end - max(sizes)]
    return text


@settings(max_examples=600)
@given(st.text("ab\n", max_size=30), st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=3), st.data())
def test_deltas_join_to_the_text_before_the_first_stop_string(text, stops, data):
    filtered, out, rest = StopStrings(stops), [], text
    while rest and filtered.found is None:
        size = data.draw(st.integers(1, 4))
        out.append(filtered.push(rest[:size]))
        rest = rest[size:]
        so_far = text[: len(text) - len(rest)]
        assert before_stops(so_far, stops).startswith("".join(out)), "no text after a stop string is returned"
    if filtered.found is None:
        out.append(filtered.finish())
    assert "".join(out) == before_stops(text, stops)
    assert (filtered.found is None) == all(stop not in text for stop in stops)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_short_stop_within_the_beginning_of_a_long_one_ends_the_text_first(size):
    """However the text is split: unsplit, the long one would match too."""
    stops = StopStrings(["abb", "b"])
    deltas = [stops.push("xabb"[at : at + size]) for at in range(0, 4, size)]
    assert "".join(deltas) == "xa" and stops.found == "b"


def test_text_that_cannot_become_a_stop_string_is_returned_at_once():
    stops = StopStrings(["\nHuman:"])
    assert stops.push("Hello\n") == "Hello"
    assert stops.push("Hu") == ""
    assert stops.push("ge") == "\nHuge"
    assert stops.push("\nHuman: and more") == ""
    assert stops.found == "\nHuman:"
    assert stops.push("x") == "" and stops.finish() == ""
