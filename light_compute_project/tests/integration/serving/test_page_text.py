"""Whatever a user or a model writes is text: nothing of it runs or loads, and links lead where they say."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.serial

HOSTILE = """\
<script>alert(1)</script><img src=x onerror="alert(2)"><svg onload=alert(3)>
<iframe src="javascript:alert(4)"></iframe> <b>bold?</b> &lt;i&gt;
[click](javascript:alert(5)) ![picture](https://example.org/x.png) [site](https://example.org)

# <img src=x onerror=alert(6)>

- <script>alert(7)</script>
- **<img src=x onerror=alert(8)>** and *<script>alert(9)</script>* and `<img src=x onerror=alert(10)>`

> <img src=x onerror=alert(11)>

```<img/src=x/onerror=alert(12)>
<script>alert(13)</script>
```"""

FOREIGN = (
    "script:not([src^='/static/']), img:not(.brand-mark), iframe, object, embed, style, b, "
    "a[href]:not(.skip-link, .runs-link, .outside)"
)


def test_markup_in_a_message_an_answer_and_a_title_stays_text(chat):
    chat.answer_with(*(HOSTILE[start : start + 7] for start in range(0, len(HOSTILE), 7)))
    shown = chat.ask(HOSTILE)
    chat.reload()
    for markup in (
        "<script>alert(1)</script>",
        "[click](javascript:alert(5))",
        "site (example.org)",
        "![picture](https://example.org/x.png)",
    ):
        assert markup in shown
    expect(chat.page.locator(".bubble")).to_contain_text('<img src=x onerror="alert(2)">')
    assert chat.page.locator(FOREIGN).count() == 0
    assert chat.page.locator("[onerror], [onload], [onclick], [style*='url']").count() == 0


def test_names_of_models_and_messages_of_the_server_stay_text(chat):
    name = "<img src=x onerror=alert(1)>"
    listing = {"data": [{"id": name, "loaded": True, "chat": False, "parameters": 1, "context_length": 1}]}
    chat.page.route("**/v1/models", lambda route: route.fulfill(json=listing))
    chat.reload()
    expect(chat.page.locator("#model-name")).to_have_text(name)
    chat.page.locator("#model-button").click()
    expect(chat.page.get_by_role("option")).to_contain_text(name)
    chat.page.keyboard.press("Escape")
    chat.refuse_with(400, "<script>alert(2)</script>")
    chat.ask("One")
    expect(chat.page.locator(".error-card")).to_contain_text("<script>alert(2)</script>")
    assert chat.page.locator(FOREIGN).count() == 0


def test_a_corrupted_stored_conversation_does_not_break_the_page(chat):
    chat.answer_with("Yes.")
    chat.ask("A good one")
    chat.page.evaluate("""() => {
        localStorage.setItem("lightcompute.conversation.broken", "{");
        localStorage.setItem("lightcompute.conversation.odd", '{"id": 3}');
        localStorage.setItem("lightcompute.settings", '{"temperature": "hot", "top_k": 3}');
    }""")
    chat.reload()
    expect(chat.page.locator(".entry-text")).to_have_text("A good one")
    chat.ask("Go on")
    assert "temperature" not in chat.asked[-1] and chat.asked[-1]["top_k"] == 3


def test_markdown_becomes_elements(chat):
    chat.answer_with(
        "## Packing\nTake **one `rope`** and *two* knives; 2*3*4 and snake_case stay.\n\n"
        '1. Oil\n   - for ninety nights\n\n2. Flour\n\n> quoted\n\n---\n~~~sh\necho "**no**"\n~~~\n```\nnot closed'
    )
    chat.ask("One")
    body = chat.answers.last
    expect(body.locator("h4")).to_have_text("Packing")
    expect(body.locator("strong")).to_have_text("one rope")
    expect(body.locator("strong code")).to_have_text("rope")
    expect(body.locator("em")).to_have_text("two")
    expect(body.locator("p").first).to_contain_text("2*3*4 and snake_case stay.")
    expect(body.locator("> ol > li")).to_have_count(2)
    expect(body.locator("ol > li > ul > li")).to_have_text("for ninety nights")
    expect(body.locator("blockquote")).to_have_text("quoted")
    expect(body.locator("hr")).to_have_count(1)
    expect(body.locator("pre")).to_have_text(['echo "**no**"', "not closed"])
    expect(body.locator(".code-head span")).to_have_text(["sh", "text"])


@pytest.mark.nightly
def test_tables_are_shown_as_tables(chat):
    chat.answer_with("| Name | Size |\n|:---|---:|\n| **a** | 1 |\n| b \\| c | <b>2</b> |\n\nNo | table\nhere")
    chat.ask("One")
    body = chat.answers.last
    expect(body.locator("th")).to_have_text(["Name", "Size"])
    expect(body.locator("td")).to_have_text(["a", "1", "b | c", "<b>2</b>"])
    expect(body.locator("td strong")).to_have_text("a")
    expect(body.locator("p")).to_have_text("No | table\nhere")
    assert chat.page.locator(FOREIGN).count() == 0


@pytest.mark.nightly
def test_a_long_heading_is_quick(chat):
    chat.answer_with("# " + " " * 20_000 + "a\u2028b ###")
    chat.ask("One")
    chat.reload()
    expect(chat.answers.last.locator("h3")).to_have_text("a\u2028b")
    assert chat.page.evaluate("performance.now()") < 10_000, "since the page was loaded"


@pytest.mark.nightly
def test_a_base_models_text_is_shown_as_it_is(chat):
    chat.page.locator("#model-button").click()
    chat.page.get_by_role("option").filter(has=chat.page.get_by_text(chat.server.base_model, exact=True)).click()
    chat.answer_with("**HAMLET:**\n\n- To be\n")
    chat.ask("Enter")
    assert chat.answers.last.evaluate("node => node.textContent") == "**HAMLET:**\n\n- To be\n"
    assert chat.answers.last.locator("*").count() == 0


LINKS = """\
[docs](https://example.org/a_(b)?x=1#y) and https://example.org/bare. <https://example.org/angle>
[bank](https://evil.example/login) [https://example.org](https://example.org)
[data](data:text/html,x) [file](file:///etc/passwd) [up](../x) [js](JaVaScRiPt:alert(1)) [ftp](ftp://example.org/x)
`https://example.org/code`"""


def test_links_lead_to_web_pages_only_and_say_where(chat):
    chat.answer_with(LINKS)
    shown = chat.ask("One")
    links = chat.answers.last.locator("a")
    addresses = links.evaluate_all("nodes => nodes.map(node => node.getAttribute('href'))")
    assert addresses == [
        "https://example.org/a_(b)?x=1#y",
        "https://example.org/bare",
        "https://example.org/angle",
        "https://evil.example/login",
        "https://example.org/",
    ]
    assert "bank (evil.example)" in shown and "https://example.org/bare." in shown
    for text in ("[data](data:text/html,x)", "[file](file:///etc/passwd)", "[up](../x)", "[js](JaVaScRiPt:alert(1))"):
        assert text in shown
    expect(links.first).to_have_attribute("rel", "noopener noreferrer nofollow")
    expect(links.first).to_have_attribute("target", "_blank")


def test_code_and_formulas_come_from_the_server_and_nothing_else_of_its_answer(chat):
    answer = {
        "code": [[["keyword", "def"], ["", " f():"], ["x onload=alert(1)", " pass"]]],
        "formulas": [
            ["math", {"display": "block", "onclick": "alert(2)"}, [["script", {}, "alert(3)"], ["mi", {}, "x"]]]
        ],
    }
    chat.page.route("**/v1/markup", lambda route: route.fulfill(json=answer))
    chat.answer_with("```py\ndef f(): pass\n```\n\nSo $$x^2$$, it costs $5 or $6, and `$y$`.")
    shown = chat.ask("One")
    body = chat.answers.last
    expect(body.locator(".code-keyword")).to_have_text("def")
    expect(body.locator("code").first).to_have_text("def f(): pass")
    expect(body.locator("math")).to_have_count(1)
    assert body.locator("math script, [onclick], [onload]").count() == 0
    assert body.locator("math mrow").text_content() == "alert(3)"
    assert "it costs $5 or $6, and $y$" in body.inner_text() and "$5" in shown
    assert chat.page.locator(FOREIGN).count() == 0


@pytest.mark.nightly
def test_formulas_that_nobody_shows_stay_as_they_were_typed(chat):
    chat.page.route("**/v1/markup", lambda route: route.fulfill(status=404, json={"error": {"message": "no"}}))
    chat.answer_with("A $x^2$ and \\(y\\) and\n\n\\[z\\]\n\n```py\nx = 1\n```")
    chat.ask("One")
    expect(chat.answers.last).to_contain_text("A $x^2$ and \\(y\\) and")
    expect(chat.answers.last.locator(".formula")).to_have_text(["$x^2$", "\\(y\\)", "\\[z\\]"])
    expect(chat.answers.last.locator("pre")).to_have_text("x = 1")
