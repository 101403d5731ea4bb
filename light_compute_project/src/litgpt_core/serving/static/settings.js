// The settings dialog. Only changed settings are stored and sent; an empty field means the server's default.
import { byId, el } from "./dom.js";
import { runOf } from "./answers.js";
import { emit, on, settingsOf, state } from "./state.js";
import { forget, read, saveConversation, write } from "./store.js";

const KEPT = "lightcompute.settings";
const EXAMPLE = "For example: You are a patient teacher. Answer briefly.";

const MOST_STOPS = 16; // the server's limit

/** limits: [lowest, highest, step]; `null` for none. */
const FIELDS = [
  {
    name: "temperature",
    label: "Temperature",
    limits: [0, 2, 0.05],
    slider: true,
    help: "Higher values make the text more varied. 0 always picks the most probable token.",
  },
  {
    name: "top_p",
    label: "Top p",
    limits: [0.05, 1, 0.05],
    slider: true,
    help: "Samples from the fewest most probable tokens whose probabilities sum to this.",
  },
  {
    name: "top_k",
    label: "Top k",
    limits: [0, null, 1],
    help: "Samples from this many most probable tokens. 0 means all.",
  },
  {
    name: "min_p",
    label: "Min p",
    limits: [0, 0.95, 0.05],
    help: "Drops tokens that are less probable than this fraction of the most probable one. 0 has no effect.",
  },
  {
    name: "max_tokens",
    label: "Longest answer",
    limits: [1, null, 1], // the server gives the maximum
    help: "In tokens; one token is about three quarters of an English word, or one character.",
  },
  {
    name: "repetition_penalty",
    label: "Repetition penalty",
    limits: [0.5, 2, 0.05],
    otherwise: 1,
    help: "Above 1, tokens that already occurred become less likely. 1 has no effect.",
  },
  {
    name: "frequency_penalty",
    label: "Frequency penalty",
    limits: [-2, 2, 0.1],
    otherwise: 0,
    help: "Above 0, tokens become less likely each time they occur. 0 has no effect.",
  },
  {
    name: "presence_penalty",
    label: "Presence penalty",
    limits: [-2, 2, 0.1],
    otherwise: 0,
    help: "Above 0, tokens that occurred at all become less likely. 0 has no effect.",
  },
  {
    name: "seed",
    label: "Seed",
    limits: [0, Number.MAX_SAFE_INTEGER, 1],
    none: "random",
    help: "The same seed gives the same answer to the same conversation.",
  },
];

export function loadSettings() {
  state.settings = cleanedSettings(read(KEPT, {}));
}

/** Only settings that this page knows, with values that are possible. */
export function cleanedSettings(kept) {
  const settings = {};
  for (const field of FIELDS) if (!problemOf(field, kept?.[field.name])) settings[field.name] = kept[field.name];
  if (typeof kept?.system === "string" && kept.system.trim()) settings.system = kept.system;
  const stops = Array.isArray(kept?.stop) ? kept.stop.filter((text) => typeof text === "string" && text) : [];
  if (stops.length) settings.stop = stops.slice(0, MOST_STOPS);
  return settings;
}

const current = () => settingsOf(state.conversation);

export function startSettings() {
  const sheet = byId("settings");
  byId("settings-button").addEventListener("click", () => {
    showForm();
    sheet.showModal();
    byId("set-system").focus();
  });
  byId("close-settings").addEventListener("click", () => sheet.close());
  sheet.addEventListener("click", (event) => event.target === sheet && sheet.close()); // the backdrop
  byId("settings-form").addEventListener("submit", (event) => event.preventDefault());
  byId("reset-settings").addEventListener("click", () => {
    if (state.conversation?.settings) setOwn({});
    else {
      state.settings = {};
      forget(KEPT);
    }
    showForm();
    emit("settings");
  });
  on("settings server open", showChanged);
  showChanged();
}

/** A mark on the button while something differs from the server's defaults. */
function showChanged() {
  const count = Object.keys(current()).length;
  const label = count ? `Settings, ${count} changed` : "Settings";
  byId("settings-button").classList.toggle("changed", count > 0);
  byId("settings-button").setAttribute("aria-label", label);
  byId("settings-button").title = label;
}

function keep(name, value) {
  const settings = current();
  if (value === undefined || value === "") delete settings[name];
  else settings[name] = value;
  if (state.conversation?.settings) setOwn(settings);
  else write(KEPT, settings);
  emit("settings");
}

/** Settings for the open conversation alone; null: those for all apply again. */
function setOwn(settings) {
  const { conversation } = state;
  if (settings) conversation.settings = settings;
  else delete conversation.settings;
  if (!runOf(conversation)) saveConversation(conversation); // else the end of the answer does
}

function limitsOf(field) {
  const [lowest, highest, step] = field.limits;
  return [lowest, field.name === "max_tokens" ? (state.server?.max_tokens ?? null) : highest, step];
}

const defaultOf = (field) => state.server?.defaults?.[field.name] ?? field.otherwise ?? null;

/** The error message for a number, or null if it is valid; `undefined` is not a number. */
function problemOf(field, value) {
  const [lowest, highest, step] = limitsOf(field);
  const open = highest === null || highest === Number.MAX_SAFE_INTEGER;
  const range = open ? `${lowest} or more` : `between ${lowest} and ${highest}`;
  const inRange = Number.isFinite(value) && value >= lowest && (highest === null || value <= highest);
  if (!inRange) return `A number ${range}.`;
  return step === 1 && !Number.isInteger(value) ? `A whole number ${range}.` : null;
}

function showForm() {
  byId("settings-form").replaceChildren(scopeField(), systemField(), ...FIELDS.map(numberField), stopField());
}

/** Whether the fields below are those of the open conversation or of all. */
function scopeField() {
  const own = el("input", { type: "checkbox", id: "set-own", "aria-describedby": "help-own", disabled: !state.conversation });
  own.checked = Boolean(state.conversation?.settings);
  own.addEventListener("change", () => {
    setOwn(own.checked ? structuredClone(state.settings) : null);
    showForm();
    byId("set-own").focus();
    emit("settings");
  });
  const help = state.conversation ? "Otherwise they apply to every conversation without settings of its own." : "They apply to every conversation.";
  const label = el("label", { class: "check", for: "set-own" }, own, " Only for this conversation");
  return el("div", { class: "field" }, label, el("p", { class: "help", id: "help-own" }, help));
}

function stopField() {
  const area = el("textarea", { id: "set-stop", rows: "2", "aria-describedby": "help-stop" });
  area.value = (current().stop ?? []).join("\n");
  area.addEventListener("input", () => {
    const texts = area.value.split("\n").filter(Boolean).slice(0, MOST_STOPS);
    keep("stop", texts.length ? texts : undefined);
  });
  const help = `An answer ends before any of these texts, one per line. At most ${MOST_STOPS}.`;
  return el("div", { class: "field" }, el("label", { for: "set-stop" }, "Stop at"), area, el("p", { class: "help", id: "help-stop" }, help));
}

function systemField() {
  const area = el("textarea", { id: "set-system", rows: "4", placeholder: EXAMPLE, "aria-describedby": "help-system" });
  area.value = current().system ?? "";
  area.addEventListener("input", () => keep("system", area.value.trim() ? area.value : ""));
  return el(
    "div",
    { class: "field" },
    el("label", { for: "set-system" }, "System prompt"),
    area,
    el("p", { class: "help", id: "help-system" }, "Precedes every conversation. Only models trained with system prompts follow it."),
  );
}

function numberField(field) {
  const [lowest, highest, step] = limitsOf(field);
  const standard = defaultOf(field);
  const standardText = standard === null ? (field.none ?? "off") : String(standard);
  const bounds = { min: lowest, max: highest, step: step === 1 ? 1 : "any" };
  const input = el("input", {
    type: "number",
    id: `set-${field.name}`,
    inputmode: step === 1 ? "numeric" : "decimal",
    placeholder: standardText,
    "aria-describedby": `help-${field.name} wrong-${field.name}`,
    ...bounds,
  });
  const wrong = el("p", { class: "field-error", id: `wrong-${field.name}`, role: "alert", hidden: true });
  const slider = field.slider && el("input", { type: "range", class: "slider", "aria-label": `${field.label}, slider`, ...bounds, step });
  const most = field.name === "max_tokens" && highest !== null ? ` At most ${highest}.` : "";
  const help = el("p", { class: "help", id: `help-${field.name}` }, `${field.help} Default: ${standardText}.${most}`);
  input.value = current()[field.name] ?? "";
  if (slider) slider.value = current()[field.name] ?? standard ?? highest;

  input.addEventListener("input", () => {
    const empty = input.value === "" && !input.validity.badInput;
    const problem = empty ? null : problemOf(field, input.valueAsNumber);
    wrong.hidden = !problem;
    wrong.textContent = problem ?? "";
    input.setAttribute("aria-invalid", String(Boolean(problem)));
    if (problem) return;
    if (slider) slider.value = empty ? (standard ?? highest) : input.value;
    keep(field.name, empty ? undefined : input.valueAsNumber);
  });
  slider?.addEventListener("input", () => {
    input.value = String(Number(slider.value));
    input.dispatchEvent(new Event("input"));
  });
  const label = el("label", { for: `set-${field.name}` }, field.label);
  return el("div", { class: "field" }, label, el("div", { class: "field-row" }, slider, input), wrong, help);
}
