// The model picker: the list of /v1/models, refreshed whenever it is opened.
import { get } from "./api.js";
import { byId, el, icon } from "./dom.js";
import { announce } from "./notices.js";
import { runOf } from "./answers.js";
import { chosenModel, emit, modelNamed, on, state } from "./state.js";
import { read, saveConversation, write } from "./store.js";

const CHOSEN = "lightcompute.model";
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const whole = new Intl.NumberFormat("en");

export const parametersText = (count) => (count ? `${compact.format(count)} parameters` : "");
export const contextText = (tokens) => (tokens ? `${whole.format(tokens)} tokens of context` : "");

export async function loadModels() {
  state.models = (await get("/v1/models")).data ?? [];
  settleModel();
}

/** Choose what the open conversation used, else the last choice, else the server's default. */
export function settleModel() {
  const wishes = [state.conversation?.model, read(CHOSEN, null), state.server?.default_model, state.models[0]?.id];
  state.modelId = wishes.find((id) => id && modelNamed(id)) ?? state.models[0]?.id ?? null;
  emit("models");
}

/** Use this model from now on, in the open conversation too. */
export function choose(id) {
  close();
  if (id === state.modelId) return;
  state.modelId = id;
  write(CHOSEN, id);
  if (state.conversation) {
    state.conversation.model = id;
    if (!runOf(state.conversation)) saveConversation(state.conversation); // else the end of the answer does
  }
  emit("models");
  announce(`${id} is selected.`);
}

export function startPicker() {
  const button = byId("model-button");
  button.addEventListener("click", () => (byId("model-popup").hidden ? open() : close()));
  button.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" && byId("model-popup").hidden) {
      event.preventDefault();
      open();
    }
  });
  byId("model-list").addEventListener("keydown", moveByKeys);
  document.addEventListener("pointerdown", (event) => {
    if (!byId("picker").contains(event.target)) close({ focus: false });
  });
  byId("picker").addEventListener("focusout", (event) => {
    if (event.relatedTarget && !byId("picker").contains(event.relatedTarget)) close({ focus: false });
  });
  on("models run", show);
  on("open", settleModel); // which emits "models"
}

function show() {
  const model = chosenModel();
  const run = runOf(state.conversation);
  const loading = run?.phase === "load";
  const button = byId("model-button");
  button.disabled = !state.models.length;
  button.classList.toggle("loading", loading);
  const none = state.server ? "No model found" : "Connecting…";
  byId("model-name").textContent = state.modelId ? `${state.modelId}${loading ? ": loading…" : ""}` : none;
  const note = byId("base-note");
  note.hidden = model?.chat !== false || !state.conversation?.exchanges.length; // the welcome text says it too
  note.textContent = model ? `${model.id} is a base model: it continues your text instead of answering it.` : "";
  byId("message").placeholder = model?.chat === false ? "Start a text" : "Write a message";
  if (!byId("model-popup").hidden) showList();
}

async function open() {
  byId("model-popup").hidden = false;
  byId("model-button").setAttribute("aria-expanded", "true");
  showList();
  focusOption(byId("model-list").querySelector('[aria-selected="true"]') ?? byId("model-list").firstElementChild);
  const note = byId("model-popup-note");
  note.textContent = "Looking…";
  try {
    const before = state.modelId;
    await loadModels();
    note.textContent = `${state.models.length} found`;
    if (state.modelId !== before) announce(`${before} is no longer available; ${state.modelId} is selected.`);
  } catch (problem) {
    note.textContent = problem.message;
  }
}

function close({ focus = true } = {}) {
  if (byId("model-popup").hidden) return false;
  byId("model-popup").hidden = true;
  byId("model-button").setAttribute("aria-expanded", "false");
  if (focus) byId("model-button").focus();
  return true;
}

function showList() {
  const list = byId("model-list");
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  list.replaceChildren(...state.models.map(option));
  if (focused) focusOption([...list.children].find((node) => node.dataset.id === focused) ?? list.firstElementChild);
}

function option(model) {
  const chosen = model.id === state.modelId;
  const facts = [parametersText(model.parameters), contextText(model.context_length)].filter(Boolean).join(" · ");
  return el(
    "li",
    {
      role: "option",
      class: "model-option",
      tabindex: "-1",
      "aria-selected": String(chosen),
      "data-id": model.id,
      onclick: () => choose(model.id),
    },
    el(
      "span",
      { class: "model-line" },
      el("span", { class: "model-id" }, model.id),
      el("span", { class: "tag" }, model.chat ? "chat" : "base"),
      model.loaded && el("span", { class: "tag loaded" }, "loaded"),
    ),
    el("span", { class: "model-facts" }, facts || "size unknown"),
    chosen && icon("check"),
  );
}

function focusOption(node) {
  node?.focus();
  node?.scrollIntoView({ block: "nearest" });
}

function moveByKeys(event) {
  const options = [...byId("model-list").children];
  const at = options.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: options.length - 1 }[event.key];
  if (to !== undefined) focusOption(options[Math.min(Math.max(to, 0), options.length - 1)]);
  else if (event.key === "Enter" || event.key === " ") options[at]?.click();
  else if (event.key === "Escape") close();
  else if (event.key.length === 1) {
    const letter = event.key.toLowerCase();
    focusOption(options.find((node) => node.dataset.id.toLowerCase().startsWith(letter)));
  } else return;
  event.preventDefault();
  event.stopPropagation();
}
