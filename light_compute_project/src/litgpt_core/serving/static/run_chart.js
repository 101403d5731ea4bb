// Curves as SVG: axes with round numbers, a colour for each run, and the values under the pointer or the arrow keys.
import { el, svg } from "./dom.js";

export const COLOURS = 8; // in the style sheet; further runs repeat them with dashes
const LEFT = 56;
const RIGHT = 14;
const TOP = 12;
const BOTTOM = 34;

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });

/** A value of a curve, short. */
export function valueText(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 10_000) return compact.format(value);
  return size && size < 0.001 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

/** Round numbers between two, about `count` of them. */
export function ticksBetween(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  if (!(rough > 0) || !Number.isFinite(rough)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) ticks.push(Number((at * step).toPrecision(12)));
  return ticks;
}

/** 1, 2 and 5 times powers of ten between two positive numbers; plain ticks where these are fewer than three. */
function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const factor of [1, 2, 5]) if (factor * 10 ** power >= low && factor * 10 ** power <= high) ticks.push(factor * 10 ** power);
  }
  return ticks.length >= 3 ? ticks : ticksBetween(low, high, 5);
}

export class RunChart {
  #series = [];
  #options = {};
  #plot = el("div", { class: "chart-plot", tabindex: "0", role: "img", "aria-label": "No curves" });
  #readout = el("div", { class: "chart-readout" });
  #at = null; // place on the x axis that is read out

  constructor() {
    this.node = el("div", { class: "chart" }, this.#plot, this.#readout);
    new ResizeObserver(() => this.#draw()).observe(this.#plot);
    this.#plot.addEventListener("pointermove", (event) => this.#point(event.clientX));
    this.#plot.addEventListener("pointerleave", () => this.#read(null));
    this.#plot.addEventListener("keydown", (event) => this.#moveByKeys(event));
    this.#plot.addEventListener("blur", () => this.#read(null));
  }

  /** series: [{name, label, slot, faint, points: [[x, y], ...]}]; options: {log, x: {label, text, unit}, y}. */
  show(series, options) {
    this.#series = series.map((one) => ({ ...one, points: options.log ? one.points.filter(([, y]) => y > 0) : one.points }));
    this.#series = this.#series.filter((one) => one.points.length);
    this.#options = options;
    this.#readout.style.minHeight = "";
    this.#draw();
  }

  #scales() {
    const all = this.#series.flatMap((one) => one.points);
    const bounds = (place) => all.reduce(([low, high], point) => [Math.min(low, point[place]), Math.max(high, point[place])], [Infinity, -Infinity]);
    const [x0, x1] = bounds(0);
    let [y0, y1] = bounds(1);
    const { log } = this.#options;
    if (y0 === y1) [y0, y1] = log ? [y0 / 1.1, y1 * 1.1] : [y0 - (Math.abs(y0) || 1) * 0.1, y1 + (Math.abs(y1) || 1) * 0.1];
    const width = this.#plot.clientWidth;
    const height = this.#plot.clientHeight;
    const share = log ? (y) => (Math.log(y) - Math.log(y0)) / (Math.log(y1) - Math.log(y0)) : (y) => (y - y0) / (y1 - y0);
    const px = (x) => LEFT + ((x - x0) / (x1 - x0 || 1)) * (width - LEFT - RIGHT);
    const py = (y) => TOP + (1 - share(y)) * (height - TOP - BOTTOM);
    return { x0, x1, y0, y1, width, height, px, py };
  }

  #draw() {
    if (!this.#series.length) {
      this.#plot.setAttribute("aria-label", "No curves");
      this.#plot.replaceChildren(el("p", { class: "chart-empty" }, this.#options.empty ?? "Choose runs in the list below."));
      this.#readout.replaceChildren();
      return;
    }
    const s = this.#scales();
    if (s.width < 80 || s.height < 60) return; // hidden
    const { x, y, log } = this.#options;
    const drawing = svg("svg", { width: s.width, height: s.height, "aria-hidden": "true" });
    for (const tick of log ? logTicks(s.y0, s.y1) : ticksBetween(s.y0, s.y1, 7)) {
      drawing.append(svg("line", { class: "grid", x1: LEFT, x2: s.width - RIGHT, y1: s.py(tick), y2: s.py(tick) }));
      drawing.append(svg("text", { x: LEFT - 8, y: s.py(tick) + 4, "text-anchor": "end" }, valueText(tick)));
    }
    for (const tick of ticksBetween(s.x0 / x.unit, s.x1 / x.unit, Math.max(2, s.width / 130))) {
      drawing.append(svg("text", { x: s.px(tick * x.unit), y: s.height - BOTTOM + 16, "text-anchor": "middle" }, compact.format(tick)));
    }
    drawing.append(svg("text", { x: s.width - RIGHT, y: s.height - 3, "text-anchor": "end" }, x.label));
    drawing.append(svg("text", { class: "chart-title", x: LEFT, y: s.height - 3 }, y));
    for (const one of this.#series) drawing.append(curveOf(one, s));
    drawing.append(svg("line", { class: "cursor", y1: TOP, y2: s.height - BOTTOM, x1: -9, x2: -9 }));
    this.#plot.replaceChildren(drawing);
    const names = this.#series.map(({ label, points }) => `${label} ${valueText(points.at(-1)[1])}`);
    this.#plot.setAttribute("aria-label", `${y} along ${x.label}; last values: ${names.join(", ")}`);
    this.#read(this.#at);
  }

  #point(clientX) {
    if (!this.#series.length) return;
    const s = this.#scales();
    const inside = clientX - this.#plot.getBoundingClientRect().left;
    const share = (inside - LEFT) / (s.width - LEFT - RIGHT);
    this.#read(s.x0 + Math.min(1, Math.max(0, share)) * (s.x1 - s.x0));
  }

  #moveByKeys(event) {
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!direction || !this.#series.length) return;
    event.preventDefault();
    const { x0, x1 } = this.#scales();
    const next = (this.#at ?? (direction > 0 ? x0 : x1)) + direction * ((x1 - x0) / 50);
    this.#read(Math.min(x1, Math.max(x0, next)));
  }

  /** The values of every curve nearest to a place; null: the last ones. */
  #read(at) {
    this.#at = at;
    const found = this.#series.map((one) => ({ ...one, point: at === null ? one.points.at(-1) : nearest(one.points, at) }));
    const line = this.#plot.querySelector(".cursor");
    const place = at === null ? -9 : this.#scales().px(at);
    line?.setAttribute("x1", place);
    line?.setAttribute("x2", place);
    const { x } = this.#options;
    this.#readout.replaceChildren(
      ...found.map(({ label, slot, faint, point }) =>
        el(
          "span",
          { class: "reading" },
          svg("svg", { class: "swatch", width: 16, height: 8, "aria-hidden": "true" }, svg("line", { class: strokeOf(slot, faint), x1: 0, x2: 16, y1: 4, y2: 4 })),
          el("span", { class: "reading-name" }, label),
          el("b", {}, valueText(point[1])),
          at !== null && el("span", { class: "quiet-note" }, `${compact.format(point[0] / x.unit)} ${x.label}`),
        ),
      ),
    );
    this.#readout.style.minHeight = `${this.#readout.offsetHeight}px`; // never smaller: nothing moves away below the pointer
  }
}

const strokeOf = (slot, faint) => `curve colour-${slot % COLOURS} dash-${Math.floor(slot / COLOURS) % 3}${faint ? " faint" : ""}`;

function curveOf({ slot, faint, points }, { px, py }) {
  const place = ([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`;
  if (points.length === 1) return svg("circle", { class: `${strokeOf(slot, faint)} dot`, cx: px(points[0][0]), cy: py(points[0][1]), r: 3.5 });
  return svg("polyline", { class: strokeOf(slot, faint), points: points.map(place).join(" ") });
}

/** The point whose x is nearest; points are in order of x. */
function nearest(points, x) {
  let [low, high] = [0, points.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] <= x) low = middle;
    else high = middle;
  }
  return Math.abs(points[low][0] - x) <= Math.abs(points[high][0] - x) ? points[low] : points[high];
}
