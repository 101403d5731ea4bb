// Colours of code and formulas as MathML, from the server, which asks kept libraries; without an answer the text stays as it is.
import { post } from "./api.js";
import { el } from "./dom.js";

const MATHML = "http://www.w3.org/1998/Math/MathML";
const MOST_KEPT = 400;
const UNDONE = "code[data-language]:not([data-done]), .formula:not([data-done])";
const TAGS = new Set(
  "math mrow mi mo mn ms mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr mtd mstyle mpadded mphantom menclose mmultiscripts mprescripts none".split(" "),
);
const ATTRIBUTES = new Set(
  "display displaystyle scriptlevel mathvariant stretchy fence separator form accent accentunder movablelimits largeop symmetric linethickness columnalign columnspacing rowspacing columnlines rowlines width height depth lspace rspace minsize maxsize notation".split(" "),
);
const known = new Map(); // what was asked -> the answer; null for none

const waiting = new Set(); // containers

/** Colour the code and show the formulas in `container`, soon; those of several containers in one request. */
export function decorate(container) {
  if (!waiting.size) setTimeout(decorateWaiting);
  waiting.add(container);
}

async function decorateWaiting() {
  const nodes = [...waiting].flatMap((container) => [...container.querySelectorAll(UNDONE)]);
  waiting.clear();
  const wanted = nodes.map((node) => [node, askedOf(node)]);
  const fresh = [...new Map(wanted.filter(([, asked]) => !known.has(asked.key)).map(([, asked]) => [asked.key, asked])).values()];
  while (fresh.length) await ask(batchOf(fresh));
  for (const [node, asked] of wanted) {
    const answer = known.get(asked.key);
    if (!answer || !node.isConnected || askedOf(node).key !== asked.key) continue;
    if (asked.code) colour(node, answer, asked.code.text);
    else node.replaceChildren(elementOf(answer));
    node.dataset.done = "";
  }
}

/** Takes the first ones from a list: at least one, and not more than the server takes at once. */
function batchOf(list) {
  let length = 0;
  let count = 0;
  while (count < Math.min(list.length, 100) && (!count || length < 60_000)) length += list[count++].key.length;
  return list.splice(0, count);
}

function askedOf(node) {
  if (node.tagName === "CODE") {
    const code = { language: node.dataset.language.slice(0, 40), text: node.textContent };
    return { key: `code ${code.language} ${code.text}`, code };
  }
  const formula = { source: node.dataset.source, display: "display" in node.dataset };
  return { key: `formula ${formula.display} ${formula.source}`, formula };
}

async function ask(wanted) {
  const code = wanted.filter((one) => one.code && one.code.text.length < 50_000);
  const formulas = wanted.filter((one) => one.formula && one.formula.source.length < 2000);
  let found = { code: [], formulas: [] };
  try {
    found = await post("/v1/markup", { code: code.map((one) => one.code), formulas: formulas.map((one) => one.formula) });
  } catch {
    // an old server, a busy one, or code that takes too long: the text stays without colours
  }
  if (known.size > MOST_KEPT) known.clear();
  wanted.forEach((one) => known.set(one.key, null));
  code.forEach((one, place) => known.set(one.key, found.code?.[place] ?? null));
  formulas.forEach((one, place) => known.set(one.key, found.formulas?.[place] ?? null));
}

function colour(node, tokens, text) {
  if (tokens.map(([, part]) => part).join("") !== text) return;
  node.replaceChildren(...tokens.map(([kind, part]) => (/^[a-z]+$/.test(kind) ? el("span", { class: `code-${kind}` }, part) : part)));
}

/** [tag, attributes, children or text] -> MathML; what is not on the lists above becomes a row without attributes. */
function elementOf([tag, attributes, inside]) {
  const node = document.createElementNS(MATHML, TAGS.has(tag) ? tag : "mrow");
  for (const [name, value] of Object.entries(attributes)) if (ATTRIBUTES.has(name)) node.setAttribute(name, String(value));
  if (typeof inside === "string") node.textContent = inside;
  else node.append(...inside.map(elementOf));
  return node;
}
