// "What did it look at?" below an answer: one of its tokens is chosen, and the tokens before it are marked by attention.
import { post } from "./api.js";
import { el } from "./dom.js";

const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 0 });
const NAMED = 3; // tokens that the sentence names

/** A section that asks the server; `request` is the conversation with the answer. */
export function attentionPane(request) {
  const status = el("p", { class: "attention-said", role: "status" }, "Computing…");
  const pane = el("section", { class: "attention", "aria-label": "What did it look at?" }, status);
  let shown = "average";
  let found = null;

  const layers = () => found.layers.map((_, number) => [String(number), `layer ${number}`]);
  const weights = () => (shown === "average" || shown === "rollout" ? found[shown] : found.layers[Number(shown)]);

  function draw() {
    const select = el("select", { "aria-label": "Which attention", onchange: () => ((shown = select.value), mark()) });
    for (const [value, text] of [["average", "all layers, mean"], ["rollout", "all layers, rollout"], ...layers()]) {
      select.append(el("option", { value, selected: value === shown }, text));
    }
    const left = found.left_out ? `The ${found.left_out} oldest tokens were not in view. ` : "";
    const hint = `${left}Choose a token of the answer: the more the model looked at a token before it, the darker that is.`;
    const context = el("div", { class: "attention-context" }, ...found.context.map((text) => el("span", {}, text)));
    pane.replaceChildren(el("div", { class: "attention-head" }, el("p", {}, hint), select), context, answerTokens(), status);
    mark();
  }

  function answerTokens() {
    const buttons = found.answer.map((text, place) =>
      el("button", { type: "button", "aria-pressed": String(place === found.position), tabindex: place === found.position ? "0" : "-1", onclick: () => ask(place) }, text),
    );
    const group = el("div", { class: "attention-answer", role: "group", "aria-label": "Tokens of the answer" }, ...buttons);
    group.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const place = found.position + (step ?? 0);
      if (!step || place < 0 || place >= buttons.length) return;
      event.preventDefault();
      ask(place);
    });
    return group;
  }

  /** The first token gets attention that is meant for none: it does not set the scale. */
  function mark() {
    const values = weights();
    const most = Math.max(...values.slice(1), values.length > 1 ? 1e-9 : values[0]);
    const tokens = pane.querySelectorAll(".attention-context span");
    values.forEach((value, place) => {
      tokens[place].style.setProperty("--weight", String(Math.min(1, value / most)));
      tokens[place].title = percent.format(value);
    });
    const order = [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, NAMED);
    const named = order.map((place) => `“${found.context[place]}” ${percent.format(values[place])}`).join(", ");
    status.textContent = `Before it wrote “${found.answer[found.position]}” it looked most at ${named}.`;
  }

  async function ask(position) {
    const focused = pane.querySelector(".attention-answer")?.contains(document.activeElement);
    status.textContent = "Computing…";
    try {
      found = await post("/v1/attention", { ...request, position });
      draw();
      if (focused) pane.querySelector('[aria-pressed="true"]')?.focus();
    } catch (problem) {
      status.textContent = `This cannot be shown: ${problem.message}`;
    }
  }

  ask(0);
  return pane;
}
