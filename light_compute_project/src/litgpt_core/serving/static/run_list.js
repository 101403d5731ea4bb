// Every training as a row, and the curves of the chosen ones above.
import { get } from "./api.js";
import { el } from "./dom.js";
import { RunChart, COLOURS, valueText } from "./run_chart.js";
import { AXES, addressOf, axisOf, dayText, durationText, keyText, progressText } from "./run_words.js";

const AT_FIRST = 5; // runs whose curves are shown before anything is chosen
const MOST = 24; // runs whose curves are shown at once

const COLUMNS = [
  { key: "name", label: "Run" },
  { key: "state", label: "State" },
  { key: "step", label: "Step", number: true, text: progressText },
  { key: "val_loss", label: "Validation loss", number: true, text: (run) => valueText(lossOf(run)), value: lossOf },
  { key: "val_bpb", label: "Bits per byte", number: true, text: (run) => valueText(bitsOf(run)), value: bitsOf },
  { key: "train_loss", label: "Training loss", number: true },
  { key: "n_params", label: "Parameters", number: true },
  { key: "train_s", label: "Time", number: true, text: (run) => durationText(run.train_s) },
  { key: "started", label: "Started", text: (run) => dayText(run.started) },
];

/** Over the whole split at the end, else the best so far. */
function lossOf(run) {
  return run.val_loss ?? run.best_val_loss;
}

function bitsOf(run) {
  return run.val_bpb ?? run.best_val_bpb;
}

export class RunList {
  #runs = [];
  #chosen = null; // names -> slot (a colour); null before the first list
  #sort = { key: "started", down: true };
  #version = null;
  #asked = "";
  #curves = null;
  #chart = new RunChart();
  #note = el("p", { class: "quiet-note" });
  #head = el("tr");
  #body = el("tbody");
  #metric = el("select", { "aria-label": "Curve", onchange: () => this.refresh() });
  #axis = el("select", { "aria-label": "Along", onchange: () => this.refresh() }, ...AXES.map(({ name, label }) => el("option", { value: name }, label)));
  #log = el("input", { type: "checkbox", onchange: () => this.#draw() });
  #search = el("input", { type: "search", placeholder: "Filter runs", "aria-label": "Filter runs", autocomplete: "off", oninput: () => this.#table() });

  constructor() {
    this.#metrics(["val_loss", "train_loss"]);
    this.node = el(
      "div",
      { class: "runs-column" },
      el("h2", {}, "Runs"),
      this.#note,
      el(
        "div",
        { class: "runs-controls" },
        el("label", {}, "Curve ", this.#metric),
        el("label", {}, "along ", this.#axis),
        el("label", { class: "check" }, this.#log, " logarithmic"),
      ),
      this.#chart.node,
      el("div", { class: "runs-controls" }, this.#search, el("button", { type: "button", class: "plain-button", onclick: () => this.#chooseNone() }, "Show none")),
      el("div", { class: "runs-table", tabindex: "0", role: "region", "aria-label": "Table of runs" }, el("table", {}, el("thead", {}, this.#head), this.#body)),
    );
  }

  /** The list of /v1/runs. */
  show(runs) {
    this.#runs = runs;
    if (this.#chosen === null) {
      this.#chosen = new Map();
      const first = [...runs.filter((run) => run.state === "running"), ...runs.filter((run) => run.state !== "running")];
      first.slice(0, AT_FIRST).forEach((run) => this.#give(run.name));
    }
    const running = runs.filter((run) => run.state === "running").length;
    this.#note.textContent = runs.length
      ? `${runs.length === 1 ? "1 run" : `${runs.length} runs`}${running ? `, ${running} running` : ""}. Choose a run to see its samples and settings.`
      : "No run lies in the folder that this server shows. A training appears here as soon as it begins.";
    this.#table();
  }

  /** The curves of the chosen runs, asked for again where something changed. */
  async refresh() {
    const names = this.#runs.map((run) => run.name).filter((name) => this.#chosen?.has(name));
    const keys = this.#metric.value ? this.#metric.value.split(",") : [];
    const query = new URLSearchParams([...names.map((name) => ["run", name]), ...keys.map((key) => ["key", key]), ["x", this.#axis.value]]);
    const asked = query.toString();
    if (!names.length) {
      this.#curves = null;
      this.#asked = "";
      this.#draw();
      return;
    }
    if (asked === this.#asked && this.#version) query.set("since", this.#version);
    const found = await get(`/v1/runs/curves?${query}`);
    this.#asked = asked;
    this.#version = found.version;
    if (found.unchanged) return;
    this.#curves = found;
    this.#metrics(found.known);
    this.#draw();
  }

  complain(message) {
    this.#note.textContent = `The runs could not be read: ${message}`;
  }

  /** The first free colour. */
  #give(name) {
    const taken = new Set(this.#chosen.values());
    let slot = 0;
    while (taken.has(slot)) slot++;
    this.#chosen.set(name, slot);
  }

  #toggle(name) {
    if (this.#chosen.has(name)) this.#chosen.delete(name);
    else if (this.#chosen.size < MOST) this.#give(name);
    this.#table();
    this.refresh().catch((problem) => this.complain(problem.message));
  }

  #chooseNone() {
    this.#chosen = new Map();
    this.#table();
    this.refresh();
  }

  #metrics(known) {
    const chosen = this.#metric.value;
    const options = [
      ["", "Validation loss, or bits per byte where tokenizers differ"],
      ["val_loss,train_loss", "Validation and training loss"],
      ...known.map((key) => [key, keyText(key)]),
    ];
    if (this.#metric.length === options.length && options.every(([value], place) => this.#metric.options[place].value === value)) return;
    this.#metric.replaceChildren(...options.map(([value, label]) => el("option", { value }, label)));
    if (options.some(([value]) => value === chosen)) this.#metric.value = chosen;
  }

  #draw() {
    const several = new Set(this.#curves?.curves.map((curve) => curve.key)).size > 1;
    const series = (this.#curves?.curves ?? [])
      .filter(({ name }) => this.#chosen.has(name))
      .map(({ name, key, points }) => ({
        name,
        label: several ? `${name}, ${keyText(key).toLowerCase()}` : name,
        slot: this.#chosen.get(name),
        faint: several && key === "train_loss",
        points,
      }));
    const keys = this.#curves?.keys ?? [];
    const far = Math.max(0, ...series.flatMap(({ points }) => points.map(([x]) => x)));
    this.#chart.show(series, {
      log: this.#log.checked,
      x: axisOf(this.#axis.value, far),
      y: keys.map(keyText).join(", "),
      empty: this.#chosen?.size ? "The chosen runs have no such values yet." : "Choose runs in the list below.",
    });
  }

  #table() {
    const words = this.#search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const focused = this.#body.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    const onHead = this.#head.contains(document.activeElement) ? document.activeElement.textContent : null;
    const rows = this.#runs.filter((run) => words.every((word) => `${run.name} ${run.state} ${run.device ?? ""}`.toLowerCase().includes(word)));
    const column = COLUMNS.find(({ key }) => key === this.#sort.key);
    const valueOf = column.value ?? ((run) => run[column.key]);
    const [having, lacking] = [rows.filter((run) => valueOf(run) !== null), rows.filter((run) => valueOf(run) === null)];
    having.sort((a, b) => (valueOf(a) < valueOf(b) ? -1 : valueOf(a) > valueOf(b) ? 1 : 0) * (this.#sort.down ? -1 : 1));
    this.#head.replaceChildren(el("th", {}, el("span", { class: "visually-hidden" }, "Curve")), ...COLUMNS.map((each) => this.#heading(each)));
    this.#body.replaceChildren(...[...having, ...lacking].map((run) => this.#row(run)));
    if (focused) [...this.#body.querySelectorAll("[data-focus]")].find((node) => node.dataset.focus === focused)?.focus();
    if (onHead) [...this.#head.querySelectorAll("button")].find((node) => node.textContent === onHead)?.focus();
  }

  #heading({ key, label, number }) {
    const sorted = this.#sort.key === key;
    const press = () => {
      this.#sort = { key, down: sorted ? !this.#sort.down : key === "started" };
      this.#table();
    };
    const order = sorted ? (this.#sort.down ? "descending" : "ascending") : null;
    return el("th", { "aria-sort": order, class: number ? "number" : null }, el("button", { type: "button", onclick: press }, label));
  }

  #row(run) {
    const slot = this.#chosen?.get(run.name);
    const shown = slot !== undefined;
    const check = el("input", {
      type: "checkbox",
      class: shown ? `curve-check colour-${slot % COLOURS}` : "curve-check",
      "aria-label": `Curve of ${run.name}`,
      "data-focus": `curve ${run.name}`,
      onchange: () => this.#toggle(run.name),
    });
    check.checked = shown;
    const cells = COLUMNS.map(({ key, number, text }) => {
      if (key === "name") return el("td", { class: "run-name" }, el("a", { href: addressOf(run.name), "data-focus": `open ${run.name}` }, run.name));
      if (key === "state") return el("td", {}, el("span", { class: `tag state-${run.state}` }, run.state));
      return el("td", { class: number ? "number" : null }, text ? text(run) : valueText(run[key]));
    });
    return el("tr", {}, el("td", {}, check), ...cells);
  }
}
