"use strict";
/* Charts without a library: heat maps on canvas, lines as SVG, bars and tokens as elements. All read the page's colours. */

function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const colourCache = new Map();
function colour(name) {
  if (!colourCache.has(name)) {
    const value = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
    colourCache.set(name, [1, 3, 5].map((at) => parseInt(value.slice(at, at + 2), 16)));
  }
  return colourCache.get(name);
}
function css(rgb) { return `rgb(${rgb.map(Math.round).join(",")})`; }
function mix(a, b, share) { return a.map((value, i) => value + (b[i] - value) * share); }
function sequential(share) { return mix(colour("low"), colour("high"), Math.sqrt(Math.max(0, Math.min(1, share)))); }
function diverging(share) {
  const s = Math.max(-1, Math.min(1, share));
  return mix(colour("middle"), colour(s < 0 ? "minus" : "plus"), Math.sqrt(Math.abs(s)));
}
function inkOn(rgb) { return (0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]) > 140 ? "#14171b" : "#ffffff"; }

function shown(token) { return token === null || token === undefined ? "" : token.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/ /g, "·"); }
function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e4) return Math.round(value).toLocaleString("en");
  if (size !== 0 && size < 0.001) return value.toExponential(1);
  return Number(value.toPrecision(digits)).toString();
}
function signed(value, digits = 3) { return (value > 0 ? "+" : "") + number(value, digits); }

/* A choice of one of several: buttons that can be reached and pressed by keyboard. */
function choice(label, names, onChange, first = 0) {
  const box = make("div", { class: "choice", role: "group", "aria-label": label }, make("span", { text: label }));
  const buttons = names.map((name, i) => make("button", { type: "button", text: name, "aria-pressed": i === first ? "true" : "false", onclick: () => pick(i) }));
  function pick(index) {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", i === index ? "true" : "false"));
    onChange(index);
  }
  box.append(...buttons);
  return box;
}

/* values[row][column]; `paint(value)` -> rgb; arrow keys move a cell that `describe(row, column)` reads out. */
function heatmap({ values, paint, describe, label, rowLabels = null, columnLabels = null, cell = 26, onSelect = null }) {
  const rows = values.length, columns = values[0].length;
  const size = Math.max(3, Math.min(cell, Math.floor(900 / columns)));
  const widest = rowLabels ? Math.max(...rowLabels.map((text) => text.length)) : 0;
  const left = rowLabels ? Math.min(160, 12 + widest * 7) : 2;
  const top = columnLabels ? (columnLabels.some((text) => text.length > 3) ? 74 : 20) : 2;
  const canvas = make("canvas", { tabindex: "0", role: "img", "aria-label": label });
  const readout = make("p", { class: "readout", "aria-live": "polite", text: "Point at a cell, or use the arrow keys." });
  let at = null;
  function draw() {
    const ratio = window.devicePixelRatio || 1, width = left + columns * size + (top > 30 ? 46 : 2), height = top + rows * size + 2;
    canvas.width = width * ratio; canvas.height = height * ratio;
    canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
      const value = values[r][c];
      if (value === null || value === undefined) continue;
      pen.fillStyle = css(paint(value));
      pen.fillRect(left + c * size, top + r * size, size - (size > 8 ? 1 : 0), size - (size > 8 ? 1 : 0));
    }
    pen.fillStyle = css(colour("soft"));
    const font = Math.min(11, size);
    pen.font = `${font}px ui-monospace, Menlo, Consolas, monospace`;
    if (rowLabels && size >= 7) {
      pen.textAlign = "right"; pen.textBaseline = "middle";
      rowLabels.forEach((text, r) => pen.fillText(text.slice(0, 22), left - 5, top + (r + 0.5) * size));
    }
    if (columnLabels && size >= 7) {
      pen.textAlign = "left"; pen.textBaseline = "middle";
      columnLabels.forEach((text, c) => {
        pen.save(); pen.translate(left + (c + 0.5) * size, top - 5);
        if (top > 30) pen.rotate(-Math.PI / 3); else pen.textAlign = "center";
        pen.fillText(text.slice(0, 11), 0, 0); pen.restore();
      });
    }
    if (at) { pen.strokeStyle = css(colour("text")); pen.lineWidth = 2; pen.strokeRect(left + at[1] * size, top + at[0] * size, size - 1, size - 1); }
  }
  function go(row, column) {
    at = [Math.max(0, Math.min(rows - 1, row)), Math.max(0, Math.min(columns - 1, column))];
    readout.replaceChildren(...[].concat(describe(...at)));
    draw();
  }
  canvas.addEventListener("mousemove", (event) => {
    const row = Math.floor((event.offsetY - top) / size), column = Math.floor((event.offsetX - left) / size);
    if (row >= 0 && row < rows && column >= 0 && column < columns) go(row, column);
  });
  canvas.addEventListener("click", () => at && onSelect && onSelect(...at));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step) { event.preventDefault(); event.stopPropagation(); go(at ? at[0] + step[0] : 0, at ? at[1] + step[1] : 0); }
    if (event.key === "Enter" && at && onSelect) onSelect(...at);
  });
  canvas.redraw = draw;
  draw();
  return make("div", {}, make("div", { class: "scroll" }, canvas), readout);
}

/* items: {name, value, error, note}; bars from 0 to both sides. */
function bars(items, { digits = 3, unit = "", sign = true } = {}) {
  const low = Math.min(0, ...items.map((item) => item.value - (item.error || 0)));
  const high = Math.max(0, ...items.map((item) => item.value + (item.error || 0)));
  const span = high - low || 1, place = (value) => (100 * (value - low)) / span;
  const box = make("div", { class: "bars" });
  for (const item of items) {
    const from = place(Math.min(0, item.value)), to = place(Math.max(0, item.value));
    const track = make("div", { class: "track", title: item.note || "" },
      make("div", { class: "bar", style: `left:${from}%;width:${to - from}%;background:var(--${item.value < 0 ? "minus" : "plus"})` }),
      item.error ? make("div", { class: "error", style: `left:${place(item.value - item.error)}%;width:${(200 * item.error) / span}%` }) : null);
    const text = (sign ? signed(item.value, digits) : number(item.value, digits)) + (item.error ? ` ± ${number(item.error, 2)}` : "") + unit;
    box.append(make("div", { class: "token", text: item.name }), track, make("div", { class: "value", text }));
  }
  return box;
}

/* series: {name, points: [[x, y, error?]], colour: 1.., style: "solid|dashed|dotted"}. */
function lines(series, { x = "", y = "", ticks = null, logarithmic = false, zero = false } = {}) {
  const every = series.flatMap((each) => each.points).filter((point) => point[1] !== null);
  const X = (value) => (logarithmic ? Math.log2(Math.max(value, 1)) : value);
  const xs = every.map((p) => X(p[0])), ys = every.flatMap((p) => [p[1] - (p[2] || 0), p[1] + (p[2] || 0)]);
  const x0 = Math.min(...xs), x1 = Math.max(...xs), y0 = zero ? Math.min(0, ...ys) : Math.min(...ys), y1 = Math.max(...ys);
  const width = 640, height = 260, left = 48, right = 12, top = 10, bottom = 36;
  const px = (value) => left + ((X(value) - x0) / (x1 - x0 || 1)) * (width - left - right);
  const py = (value) => top + (1 - (value - y0) / (y1 - y0 || 1)) * (height - top - bottom);
  const parts = [];
  for (let i = 0; i <= 4; i++) {
    const value = y0 + ((y1 - y0) * i) / 4;
    parts.push(`<line class="axis" x1="${left}" x2="${width - right}" y1="${py(value)}" y2="${py(value)}"/><text x="${left - 6}" y="${py(value) + 4}" text-anchor="end">${number(value, 2)}</text>`);
  }
  const marks = ticks || [...new Set(every.map((p) => p[0]))].map((value) => [value, number(value)]);
  const skip = Math.ceil(marks.length / 9);
  marks.forEach(([value, text], i) => { if (i % skip === 0) parts.push(`<text x="${px(value)}" y="${height - 18}" text-anchor="${px(value) > width - 40 ? "end" : "middle"}">${escapeText(text)}</text>`); });
  parts.push(`<text x="${(width + left) / 2}" y="${height - 2}" text-anchor="middle">${escapeText(x)}</text><text x="${left}" y="${top - 1}" dy="-0"></text>`);
  for (const each of series) {
    const stroke = `var(--series-${each.colour})`, points = each.points.filter((p) => p[1] !== null);
    const dash = { dashed: "6 4", dotted: "2 3" }[each.style] || "";
    if (points.some((p) => p[2])) {
      const band = [...points.map((p) => `${px(p[0])},${py(p[1] + (p[2] || 0))}`), ...points.slice().reverse().map((p) => `${px(p[0])},${py(p[1] - (p[2] || 0))}`)];
      parts.push(`<polygon points="${band.join(" ")}" fill="${stroke}" opacity="0.18"/>`);
    }
    parts.push(`<polyline fill="none" stroke="${stroke}" stroke-width="2" stroke-dasharray="${dash}" points="${points.map((p) => `${px(p[0])},${py(p[1])}`).join(" ")}"/>`);
    if (!dash) for (const p of points) parts.push(`<circle cx="${px(p[0])}" cy="${py(p[1])}" r="3" fill="${stroke}"><title>${escapeText(`${each.name}: ${number(p[0])}, ${number(p[1])}${p[2] ? " ± " + number(p[2], 2) : ""}`)}</title></circle>`);
  }
  const box = make("div", { role: "img", "aria-label": `${y} against ${x}` });
  box.innerHTML = `<svg viewBox="0 0 ${width} ${height}">${parts.join("")}</svg>`;
  const legend = make("div", { class: "legend" }, ...(y ? [make("span", { text: y })] : []),
    ...(series.length > 1 ? series.map((each) => make("span", {}, make("i", { class: each.style || "", style: `border-color:var(--series-${each.colour})` }), document.createTextNode(each.name))) : []));
  return make("div", {}, legend, box);
}
function escapeText(text) { return String(text).replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`); }

/* Tokens of a text; `paint(i)` -> rgb or null, `tell(i)` -> title, `onSelect(i)`. */
function tokenStrip(texts, { paint = () => null, tell = () => "", onSelect = null } = {}) {
  const box = make("div", { class: "tokens" });
  texts.forEach((text, i) => {
    const visible = text.replace(/\n/g, "⏎\n") || "∅";
    const span = make("span", { text: visible, title: tell(i), tabindex: onSelect ? "0" : null });
    if (onSelect) {
      span.addEventListener("mouseenter", () => onSelect(i));
      span.addEventListener("focus", () => onSelect(i));
    }
    box.append(span);
  });
  box.repaint = (painter = paint, at = -1) => {
    [...box.children].forEach((span, i) => {
      const rgb = painter(i);
      span.style.background = rgb ? css(rgb) : ""; span.style.color = rgb ? inkOn(rgb) : "";
      span.classList.toggle("at", i === at);
    });
    paint = painter;
  };
  box.redraw = () => box.repaint();
  box.repaint();
  return box;
}

function rowsTable(head, rows) {
  return make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { text })))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", { text: cell })))))));
}

/* The text around a token, as examples of neurons and features are given. */
function exampleText(example) {
  return make("div", { class: "text", title: `activation ${number(example.activation)}` },
    document.createTextNode(example.before), make("mark", { text: example.token.replace(/\n/g, "⏎\n") }), document.createTextNode(example.after));
}

function unpack(packed) {
  const raw = atob(packed.base64);
  const bytes = Uint8Array.from(raw, (letter) => letter.charCodeAt(0));
  const [layers, heads, length] = packed.shape;
  return (layer, head, query, key) => bytes[((layer * heads + head) * length + query) * length + key] / 255;
}
