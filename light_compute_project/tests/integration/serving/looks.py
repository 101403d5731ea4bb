"""How a page is looked at: a phone, the contrast of every text, whether it fits its width."""

from __future__ import annotations

from pathlib import Path

IMAGES = Path(__file__).resolve().parents[3] / "docs" / "images"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}

FAINT_TEXT = """() => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const rgba = (color) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const behind = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const color = rgba(getComputedStyle(at).backgroundColor);
            if (color[3] === 255) return color;
        }
        return [255, 255, 255, 255];
    };
    const faint = [];
    let looked = 0;
    for (const node of document.querySelectorAll("body *")) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
        if (!own && !node.placeholder) continue;
        if (node.disabled || node.closest(".visually-hidden")) continue;
        if (!node.checkVisibility({visibilityProperty: true})) continue;
        const style = getComputedStyle(node, !own ? "::placeholder" : null);
        const [a, b] = [light(rgba(style.color)), light(behind(node))].sort((x, y) => y - x);
        const contrast = (a + 0.05) / (b + 0.05);
        looked++;
        if (contrast < 4.5) faint.push(`${node.tagName}.${node.className} ${contrast.toFixed(2)}`);
    }
    return {looked, faint};
}"""


def no_faint_text(chat, at_least: int) -> None:
    found = chat.page.evaluate(FAINT_TEXT)
    assert found["looked"] >= at_least, found
    assert not found["faint"]


def fits_its_width(chat) -> bool:
    return chat.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
