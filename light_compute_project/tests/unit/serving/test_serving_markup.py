"""Colours of code and formulas for the page: kept libraries in a child process with limits."""

from __future__ import annotations

import sys

import pytest

from litgpt_core.serving import markup_child, markup_process

CODE = '# a comment\ndef double(x: int) -> str:\n    return "é" * 2\n'


def test_code_is_given_back_in_coloured_tokens_that_join_to_it(client):
    here = client()
    body = here.post("/v1/markup", json={"code": [{"language": "python", "text": CODE}]}).json()
    [tokens] = body["code"]
    assert "".join(part for _, part in tokens) == CODE
    kinds = {part.strip(): kind for kind, part in tokens}
    assert kinds["# a comment"] == "comment" and kinds["double"] == "name" and kinds["2"] == "number"
    assert kinds['"é"'] == "string" and kinds["return"] == "keyword"


@pytest.mark.parametrize("text", ["", "\n\n  x", "no line end", "\r\nwindows\r\n", "\x00\x1b[0m", "🙂" * 10])
@pytest.mark.parametrize("language", ["python", "cpp", "json", "html", "diff", "bash"])
def test_any_text_joins_again(language: str, text: str) -> None:
    tokens = markup_child.coloured(language, text)
    assert tokens is not None
    assert "".join(part for _, part in tokens) == text.replace("\r\n", "\n").replace("\r", "\n")


def test_an_unknown_language_and_what_is_no_formula_have_no_answer(client):
    request = {"code": [{"language": "klingon", "text": "nuqneH"}], "formulas": [{"source": "\\left( x"}]}
    assert client().post("/v1/markup", json=request).json() == {"code": [None], "formulas": [None]}


def test_a_formula_is_a_tree_of_mathml() -> None:
    tag, attributes, [row] = markup_child.formula(r"\frac{a}{b} \le x^2 < \alpha", display=True)
    assert (tag, attributes["display"], row[0]) == ("math", "block", "mrow")

    def texts(node: list) -> list[str]:
        return [node[2]] if isinstance(node[2], str) else [text for child in node[2] for text in texts(child)]

    assert [text for text in texts(row) if text] == ["a", "b", "≤", "x", "2", "<", "α"]
    assert row[2][0][0] == "mfrac"


def test_without_its_library_a_formula_stays_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", None)
    assert markup_child.formula("x", display=False) is None


def test_code_that_takes_too_long_ends_the_child_alone(client, monkeypatch: pytest.MonkeyPatch) -> None:
    here = client()
    request = {"code": [{"language": "python", "text": "x = 1\n" * 8000}]}
    monkeypatch.setattr(markup_process, "SECONDS", 0.001)
    response = here.post("/v1/markup", json=request)
    assert response.status_code == 400 and response.json()["error"]["code"] == "markup_too_slow"
    monkeypatch.setattr(markup_process, "SECONDS", 20.0)
    assert here.post("/v1/markup", json=request).json()["code"][0]
    assert here.get("/health").status_code == 200


def test_what_is_too_much_is_refused_by_name(client):
    here = client()
    long = here.post("/v1/markup", json={"code": [{"language": "python", "text": "x" * 50_001}]})
    assert long.status_code == 400 and long.json()["error"]["param"] == "code.0.text"
    many = here.post("/v1/markup", json={"formulas": [{"source": "x"}] * 301})
    assert many.status_code == 400 and many.json()["error"]["param"] == "formulas"
