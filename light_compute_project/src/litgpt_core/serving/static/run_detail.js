// One training: its numbers, curve, samples and settings, and the way to a conversation with its checkpoint.
import { get } from "./api.js";
import { byId, copyButton, el, icon } from "./dom.js";
import { choose, loadModels } from "./models.js";
import { announce, toast } from "./notices.js";
import { RunChart, valueText } from "./run_chart.js";
import { axisOf, dayText, durationText, keyText, progressText } from "./run_words.js";
import { openConversation } from "./sidebar.js";
import { emit, modelNamed } from "./state.js";

const KEYS = ["val_loss", "train_loss"];

export class RunDetail {
  #run = null;
  #known = null; // of /v1/runs/one
  #version = null;
  #chart = new RunChart();
  #state = el("span", { class: "tag" });
  #facts = el("dl", { class: "run-facts" });
  #actions = el("div", { class: "run-actions" });
  #problem = el("p", { class: "field-error", role: "alert", hidden: true });
  #rest = el("div", { class: "run-rest" });
  #search = el("input", { type: "search", placeholder: "Filter settings", "aria-label": "Filter settings", autocomplete: "off", oninput: () => this.#settings() });
  #table = el("tbody");

  constructor(name) {
    this.name = name;
    this.node = el(
      "div",
      { class: "runs-column" },
      el("a", { class: "back-link", href: "#runs" }, icon("back"), el("span", {}, "All runs")),
      el("h2", {}, name, " ", this.#state),
      this.#problem,
      this.#facts,
      this.#actions,
      this.#chart.node,
      this.#rest,
    );
  }

  /** The list of /v1/runs. */
  show(runs) {
    const before = this.#run;
    this.#run = runs.find((run) => run.name === this.name) ?? null;
    if (!this.#run) return this.complain("It is not in the folder that this server shows.");
    this.#problem.hidden = true;
    this.#state.textContent = this.#run.state;
    this.#state.className = `tag state-${this.#run.state}`;
    const facts = factsOf(this.#run).filter(([, text]) => text);
    this.#facts.replaceChildren(...facts.map(([label, text]) => el("div", {}, el("dt", {}, label), el("dd", {}, text))));
    if (before?.state !== this.#run.state || before?.model !== this.#run.model) {
      this.#showActions();
      this.#known = null; // samples come at the end of a run
    }
  }

  async refresh() {
    if (!this.#run) return;
    if (!this.#known) {
      this.#known = await get(`/v1/runs/one?${new URLSearchParams({ run: this.name })}`);
      this.#showRest();
    }
    const query = new URLSearchParams([["run", this.name], ...KEYS.map((key) => ["key", key]), ...(this.#version ? [["since", this.#version]] : [])]);
    const found = await get(`/v1/runs/curves?${query}`);
    this.#version = found.version;
    if (found.unchanged) return;
    const series = found.curves.map(({ key, points }) => ({ label: keyText(key), slot: 0, faint: key === "train_loss", points }));
    this.#chart.show(series, { log: false, x: axisOf("steps", 0), y: "Loss, nats per token", empty: "No row has been written yet." });
  }

  complain(message) {
    this.#problem.hidden = false;
    this.#problem.textContent = `This run could not be read: ${message}`;
  }

  #showActions() {
    const { model } = this.#run;
    const chat = el("button", { type: "button", class: "main-button", onclick: () => this.#chat(model) }, "Chat with this checkpoint");
    const none = el("span", { class: "quiet-note" }, "There is no complete checkpoint to chat with yet.");
    this.#actions.replaceChildren(model ? chat : none);
  }

  async #chat(model) {
    try {
      if (!modelNamed(model)) await loadModels();
    } catch (problem) {
      return toast(problem.message);
    }
    emit("chat");
    openConversation(null);
    choose(model);
    announce(`A conversation with ${model}.`);
    byId("message").focus();
  }

  #showRest() {
    const { samples, command } = this.#known;
    const sampled = samples ? el("pre", { class: "run-samples", tabindex: "0", role: "region", "aria-label": "Samples" }, samples) : el("p", { class: "quiet-note" }, "Samples are written at the end of a run.");
    this.#rest.replaceChildren(
      el("h3", {}, "Samples"),
      sampled,
      el("h3", {}, "Settings"),
      command && el("div", { class: "command" }, el("code", { tabindex: "0" }, command), copyButton(() => command, "Copy command")),
      this.#search,
      el("div", { class: "runs-table", tabindex: "0", role: "region", "aria-label": "Settings" }, el("table", {}, this.#table)),
    );
    this.#settings();
  }

  #settings() {
    const words = this.#search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = flat(this.#known?.config ?? {}).filter(([key, value]) => words.every((word) => `${key} ${value}`.toLowerCase().includes(word)));
    this.#table.replaceChildren(...rows.map(([key, value]) => el("tr", {}, el("th", { scope: "row" }, key), el("td", {}, value))));
  }
}

function factsOf(run) {
  return [
    ["Step", progressText(run)],
    ["Tokens", run.tokens === null ? "" : valueText(run.tokens)],
    ["Validation loss", run.val_loss === null ? "" : `${valueText(run.val_loss)} over the whole split`],
    ["Best validation loss", valueText(run.best_val_loss)],
    ["Bits per byte", valueText(run.val_bpb ?? run.best_val_bpb)],
    ["Training loss", valueText(run.train_loss)],
    ["Tokens per second", run.tokens_per_s === null ? "" : valueText(Number(run.tokens_per_s.toPrecision(2)))],
    ["Parameters", run.n_params === null ? "" : valueText(run.n_params)],
    ["Time", durationText(run.train_s)],
    ["Started", dayText(run.started)],
    ["Device", run.device ?? ""],
    ["Last change", run.state === "unfinished" ? `${durationText(run.idle_s)} ago` : ""],
  ];
}

/** Nested settings as dotted keys with their values as JSON; texts without quotes. */
function flat(value, prefix = "") {
  if (value === null || typeof value !== "object" || Array.isArray(value) || !Object.keys(value).length) {
    return [[prefix, typeof value === "string" ? value : JSON.stringify(value)]];
  }
  return Object.entries(value).flatMap(([key, inner]) => flat(inner, prefix ? `${prefix}.${key}` : key));
}
