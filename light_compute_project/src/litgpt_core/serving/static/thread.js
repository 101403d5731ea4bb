// The open conversation: its exchanges, or a welcome text. Scrolls with the text unless the user scrolled away.
import { byId, el, icon } from "./dom.js";
import { ExchangeView } from "./exchange_view.js";
import { announce } from "./notices.js";
import { runOf } from "./answers.js";
import { chosenModel, on, state } from "./state.js";
import { titleOf } from "./store.js";
import { contextText, parametersText } from "./models.js";

const NEAR = 80; // px from the end that still count as the end

let views = [];
let following = true;
let frame = null;
let fillComposer = () => {};

/** `fill` sets the text of the message box. */
export function startThread({ fill }) {
  fillComposer = fill;
  const thread = byId("thread");
  thread.addEventListener("scroll", () => {
    following = distanceToEnd() < NEAR;
    showJump();
  });
  byId("to-latest").addEventListener("click", () => {
    following = true;
    toEnd("smooth");
    byId("message").focus({ preventScroll: true });
  });
  new ResizeObserver(() => following && toEnd()).observe(thread);
  on("open", show);
  on("models server", () => {
    const focused = thread.querySelector(".welcome")?.contains(document.activeElement);
    if (!state.conversation?.exchanges.length && !focused) welcome(); // a starter stays under the keys
  });
  on("run", (run) => run.conversation === state.conversation && refresh(run));
  on("answered", (run) => run.conversation === state.conversation && announceEnd(run.exchange.answer));
  on("delta", (run) => {
    if (run.conversation !== state.conversation || frame !== null) return;
    frame = requestAnimationFrame(() => {
      frame = null;
      views.at(-1)?.grow();
      if (following) toEnd();
      showJump();
    });
  });
}

/** Open the last message for editing; false when there is none or it is being answered. */
export function editLast() {
  if (!views.length || runOf(state.conversation)) return false;
  views.at(-1).edit();
  return true;
}

function show() {
  const thread = byId("thread");
  const exchanges = state.conversation?.exchanges ?? [];
  document.title = exchanges.length ? `${titleOf(state.conversation)} · Light Compute` : "Light Compute";
  if (!exchanges.length) {
    views = [];
    welcome();
    return;
  }
  views = exchanges.map((exchange, place) => new ExchangeView(state.conversation, exchange, { last: place === exchanges.length - 1 }));
  thread.replaceChildren(el("div", { class: "column" }, ...views.map((view) => view.node)));
  following = true;
  toEnd();
  showJump();
}

/** An answer began or ended: a new exchange means new last buttons everywhere. */
function refresh(run) {
  if (views.at(-1)?.exchange !== run.exchange) {
    show();
  } else {
    views.forEach((view) => view.update()); // all: no message can be edited during an answer
    if (runOf(run.conversation)) following = true;
    if (following) toEnd();
    showJump();
  }
  byId("thread").setAttribute("aria-busy", String(Boolean(runOf(state.conversation))));
}

function announceEnd(answer) {
  if (answer.error) announce(answer.error);
  else announce(answer.end === "stopped" ? "Stopped." : `Answer: ${answer.text}`);
}

function welcome() {
  const model = chosenModel();
  const base = model?.chat === false;
  const facts = model && [parametersText(model.parameters), contextText(model.context_length)].filter(Boolean).join(", ");
  const logging = state.server?.logging;
  const thread = byId("thread");
  thread.replaceChildren(
    el(
      "div",
      { class: "welcome" },
      el("h2", {}, base ? "Begin a text" : "What shall we talk about?"),
      el(
        "p",
        { class: "welcome-model" },
        model
          ? base
            ? `${model.id} is a base model${facts ? ` (${facts})` : ""}: it is not trained to answer. It continues what you write.`
            : `You are talking with ${model.id}${facts ? ` (${facts})` : ""}.`
          : "Waiting for the server.",
      ),
      model &&
        el(
          "div",
          { class: "starters" },
          ...(model.suggestions ?? []).map((text) =>
            el("button", { type: "button", class: "starter", onclick: () => fillComposer(text) }, el("span", {}, text), icon("send")),
          ),
        ),
      logging !== undefined &&
        el(
          "p",
          { class: "welcome-log" },
          logging
            ? "The server logs conversations and ratings in its chat_history.jsonl, which can be used for fine-tuning."
            : "The server keeps no log. Conversations stay in this browser.",
        ),
    ),
  );
  byId("to-latest").hidden = true;
}

function distanceToEnd() {
  const thread = byId("thread");
  return thread.scrollHeight - thread.scrollTop - thread.clientHeight;
}

function toEnd(behavior = "instant") {
  const thread = byId("thread");
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  thread.scrollTo({ top: thread.scrollHeight, behavior: calm ? "instant" : behavior });
}

function showJump() {
  byId("to-latest").hidden = distanceToEnd() < NEAR || !views.length;
}
