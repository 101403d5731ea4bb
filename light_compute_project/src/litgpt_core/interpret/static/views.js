"use strict";
/* One entry per view: how to read it, and how it is drawn from its values. */

const layerLabels = (count) => Array.from({ length: count }, (_, i) => `layer ${i}`);
const headLabels = (count) => Array.from({ length: count }, (_, i) => `H${i}`);
const symmetric = (values) => { const most = Math.max(1e-9, ...values.flat().filter((v) => v !== null).map(Math.abs)); return (v) => diverging(v / most); };
const upTo = (values) => { const most = Math.max(1e-9, ...values.flat().filter((v) => v !== null)); return (v) => sequential(v / most); };
const tokenMark = (text) => make("b", { text: shown(text) });

const VIEWS = {
  budget: {
    how: "Parameters, and FLOPs of the forward pass for one token. A tied head has FLOPs but no parameters of its own.",
    draw(box, v) {
      const sums = { parameters: v.parameters, flops: v.flops };
      for (const [key, title] of [["parameters", "Parameters"], ["flops", `FLOPs per token at ${v.seq_length} tokens of context`]]) {
        const rows = v.rows.filter((row) => row[key] > 0).sort((a, b) => b[key] - a[key]);
        box.append(make("h3", { text: title }), bars(rows.map((row) => ({ name: row.group, value: (100 * row[key]) / sums[key], note: number(row[key]) })), { unit: " %", sign: false }));
      }
      box.append(make("h3", { text: "Sizes" }), rowsTable(["", ""], [...Object.entries(v.shape).map(([k, x]) => [k, String(x)]), ...Object.entries(v.bytes).map(([k, x]) => [`bytes in ${k}`, number(x)])]));
    },
  },
  surprisal: {
    how: "How many bits each token costs, given those before it: the darker, the less expected. Point at a token for what the model expected instead.",
    draw(box, v) {
      const most = Math.max(...v.bits.filter((b) => b !== null), 1), out = make("p", { class: "readout", text: "Point at a token." });
      const strip = tokenStrip(v.prompt, {
        paint: (i) => (v.bits[i] === null ? null : sequential((v.bits[i] / most) ** 2)),
        onSelect: (i) => out.replaceChildren(tokenMark(v.prompt[i]), v.bits[i] === null ? " is the first token" : ` costs ${number(v.bits[i])} bits (entropy ${number(v.entropy[i])}); most probable was `, v.bits[i] === null ? "" : tokenMark(v.expected[i])),
      });
      box.append(strip, out);
    },
  },
  lens: {
    how: "The prediction that each layer's residual stream would give. Rows are layers, columns tokens; a cell holds the most probable next token, darker where it is more probable. Select a cell for the five best.",
    draw(box, v) {
      const out = make("p", { class: "readout", text: "Select a cell." });
      if (v.cut_from) box.append(make("p", { class: "readout", text: `The last ${v.prompt.length} of ${v.cut_from} tokens.` }));
      const table = make("table", { class: "grid" });
      table.append(make("tr", {}, make("th", {}), ...v.prompt.map((text) => make("th", { text: shown(text).slice(0, 12) }))));
      const cells = [];
      [...v.layers.keys()].reverse().forEach((layer) => {
        const row = make("tr", {}, make("th", { text: v.layers[layer] }));
        v.prompt.forEach((text, i) => {
          const g = v.grid[layer];
          const select = () => out.replaceChildren(`${v.layers[layer]}, after `, tokenMark(text), ": ", ...g.tokens[i].flatMap((token, n) => [tokenMark(token), ` ${(100 * g.probabilities[i][n]).toFixed(1)} %  `]), g.rank_of_next[i] === null ? "" : `; the token that follows has rank ${g.rank_of_next[i]}`);
          const cell = make("td", { text: shown(g.tokens[i][0]).slice(0, 12), tabindex: "0", onclick: select, onfocus: select, onmouseenter: select });
          cells.push([cell, g.probabilities[i][0]]);
          row.append(cell);
        });
        table.append(row);
      });
      table.redraw = () => cells.forEach(([cell, p]) => { const rgb = sequential(p); cell.style.background = css(rgb); cell.style.color = inkOn(rgb); });
      table.redraw();
      box.append(make("div", { class: "scroll" }, table), out);
      if (v.text_loss) box.append(make("h3", { text: `On ${v.text_tokens.toLocaleString("en")} held-out tokens` }), lines([
        { name: "loss of the layer's prediction", colour: 1, points: v.text_loss.map((y, x) => [x, y]) },
        { name: "divergence from the final prediction", colour: 2, points: v.text_divergence.map((y, x) => [x, y]) }], { y: "nats", ticks: v.layers.map((name, i) => [i, name]), zero: true }));
    },
  },
  attribution: {
    how: "What each part added to the logit of the model's first choice after the prompt, relative to the mean logit; the bars sum to it. Against the runner-up: the parts of the difference of the two logits.",
    draw(box, v) {
      const place = make("div", {});
      const show = (i) => {
        const parts = Object.entries(i ? v.against_runner_up : v.parts).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
        const sum = parts.reduce((total, part) => total + part[1], 0), kept = parts.slice(0, 24);
        const rest = parts.slice(24).reduce((total, part) => total + part[1], 0);
        const items = kept.map(([name, value]) => ({ name, value }));
        if (parts.length > 24) items.push({ name: `${parts.length - 24} others`, value: rest });
        place.replaceChildren(make("p", { class: "readout" }, i ? "Logit of " : "Centred logit of ", tokenMark(v.token), ...(i ? [" minus that of ", tokenMark(v.runner_up)] : []), `: ${number(sum)}`), bars(items));
      };
      box.append(tokenStrip(v.prompt), choice("compare", ["with the mean", "with the runner-up"], show), place);
      show(0);
      if (v.neurons.length) box.append(make("h3", { text: "Single neurons with the largest effect" }), bars(v.neurons.map((n) => ({ name: n.neuron, value: n.added }))));
    },
  },
  attention: {
    how: "Where each query (row) looks among the tokens before it (columns). Choose a head; point at a token below to see what it attends to.",
    draw(box, v) {
      const at = unpack(v.weights), [layers, heads, length] = v.weights.shape;
      let layer = 0, head = 0, query = length - 1, hideFirst = false;
      const place = make("div", {}), facts = make("p", { class: "readout" });
      const strip = tokenStrip(v.prompt, { onSelect: (i) => { query = i; colourTokens(); } });
      function colourTokens() {
        let most = 0;
        for (let k = hideFirst ? 1 : 0; k <= query; k++) most = Math.max(most, at(layer, head, query, k));
        strip.repaint((i) => (i > query || (hideFirst && i === 0) ? null : sequential(at(layer, head, query, i) / (most || 1))), query);
      }
      function show() {
        const rows = Array.from({ length }, (_, q) => Array.from({ length }, (_, k) => (k > q || (hideFirst && k === 0) ? null : at(layer, head, q, k))));
        place.replaceChildren(heatmap({
          values: rows, paint: upTo(rows), cell: 18, label: `attention of head ${head} in layer ${layer}`, rowLabels: v.prompt.map(shown), columnLabels: v.prompt.map(shown),
          describe: (q, k) => [tokenMark(v.prompt[q]), ` (${q}) attends to `, tokenMark(v.prompt[k]), ` (${k}): ${(100 * at(layer, head, q, k)).toFixed(0)} %`],
          onSelect: (q) => { query = q; colourTokens(); },
        }));
        facts.textContent = `Layer ${layer}, head ${head}: entropy ${number(v.entropy_bits[layer][head])} bits (uniform: ${number(v.uniform_entropy_bits)}); ${(100 * v.to_first[layer][head]).toFixed(0)} % to the first token.` + (v.cut_from ? ` The first ${length} of ${v.cut_from} tokens are shown.` : "");
        colourTokens();
      }
      const pick = (set) => (i) => { set(i); show(); };
      box.append(choice("layer", Array.from({ length: layers }, (_, i) => String(i)), pick((i) => { layer = i; })),
        choice("head", Array.from({ length: heads }, (_, i) => String(i)), pick((i) => { head = i; })),
        choice("first token", ["shown", "hidden"], pick((i) => { hideFirst = i === 1; })), facts, place, make("h3", { text: "What a token attends to" }), strip);
      show();
    },
  },
  heads: {
    how: "Mean attention to the previous token, to the same token one period before, to the token after it (induction), and to the first token, on random tokens that repeat with a random period. Chance is a head that looks at everything alike.",
    draw(box, v) {
      const kinds = ["previous", "duplicate", "induction", "sink"], place = make("div", {});
      const show = (i) => {
        const kind = kinds[i], s = v[kind].scores, e = v[kind].errors;
        place.replaceChildren(heatmap({ values: s, paint: (x) => sequential(x), cell: 34, label: `${kind} scores`, rowLabels: layerLabels(s.length), columnLabels: headLabels(s[0].length),
          describe: (l, h) => [make("b", { text: `L${l}H${h}` }), ` ${number(s[l][h])} ± ${number(e[l][h], 2)}; chance ${number(v[kind].chance)}` + (kind === "sink" ? "" : `, best for random offsets ${number(v.control)}`)] }));
      };
      box.append(choice("attends to", ["previous token", "duplicate", "induction", "first token"], show), place,
        rowsTable(["random tokens", "loss, nats"], [["first time", number(v.first_loss)], ["repeated", number(v.repeated_loss)], ["difference", `${number(v.gain)} ± ${number(v.gain_error, 2)}`]]));
      show(0);
    },
  },
  ablation: {
    how: "How much the loss on held-out text rises when a part's output is replaced by its mean. The error is the standard error over windows of text, paired.",
    draw(box, v) {
      const layers = Math.max(...v.components.map((c) => c.layer)) + 1, heads = Math.max(...v.components.map((c) => (c.head === null ? 0 : c.head + 1)));
      const values = Array.from({ length: layers }, () => Array(heads + 1).fill(null)), by = {};
      v.components.forEach((c) => { const column = c.head === null ? heads : c.head; values[c.layer][column] = c.delta; by[`${c.layer},${column}`] = c; });
      const ordered = values.flat().filter((x) => x !== null).map(Math.abs).sort((a, b) => b - a);
      const most = ordered[Math.min(layers, ordered.length - 1)] || 1;  /* the few largest do not hide the others */
      box.append(make("p", { class: "readout", text: `Loss ${number(v.loss)} nats on ${v.tokens.toLocaleString("en")} tokens; ${v.tested} of ${v.parts} parts were run. Colours end at ${number(most)}.` }),
        heatmap({ values, paint: (x) => diverging(x / most), cell: 34, label: "rise of the loss without each part", rowLabels: layerLabels(layers), columnLabels: [...headLabels(heads), "MLP"],
          describe: (l, c) => { const it = by[`${l},${c}`]; return it ? [make("b", { text: it.name }), ` ${signed(it.delta)} ± ${number(it.error, 2)} nats per token`] : ["not run"]; } }),
        make("h3", { text: "Largest effects" }), bars(v.components.slice(0, 20).map((c) => ({ name: c.name, value: c.delta, error: c.error }))));
    },
  },
  patching: {
    how: "The second text runs with one activation of the first put in place. 0: nothing changes; 1: the first text's answer is restored. Estimated: the same from one backward pass.",
    draw(box, v) {
      box.append(make("div", { class: "pair" }, "1", tokenStrip(v.prompt, { paint: (i) => (v.prompt[i] === v.against[i] ? null : sequential(0.3)) })), make("div", { class: "pair" }, "2", tokenStrip(v.against, { paint: (i) => (v.prompt[i] === v.against[i] ? null : sequential(0.3)) })),
        make("p", { class: "readout" }, "Logit of ", tokenMark(v.answer), " minus that of ", tokenMark(v.other), `: ${number(v.metric_prompt)} after the first, ${number(v.metric_against)} after the second.`));
      const kinds = { "residual stream": v.positions.resid_pre, attention: v.positions.attn_out, MLP: v.positions.mlp_out, "residual stream, estimated": v.estimated };
      const place = make("div", {}), names = Object.keys(kinds);
      const show = (i) => { const values = kinds[names[i]]; place.replaceChildren(heatmap({ values, paint: (x) => diverging(x), label: `effect by layer and position: ${names[i]}`, rowLabels: layerLabels(values.length), columnLabels: v.prompt.map(shown),
        describe: (l, t) => [`layer ${l}, at `, tokenMark(v.prompt[t]), ` (${t}): ${number(values[l][t])}`] })); };
      box.append(choice("put in place", names, show), place, make("h3", { text: "Heads, all positions" }));
      show(0);
      const both = make("div", { class: "two" });
      for (const [title, values] of [["patched", v.heads], ["estimated", v.estimated_heads]]) both.append(make("div", {}, make("p", { class: "how", text: title }), heatmap({ values, paint: symmetric(v.heads), cell: 34, label: `${title} effect of heads`, rowLabels: layerLabels(values.length), columnLabels: headLabels(values[0].length), describe: (l, h) => [make("b", { text: `L${l}H${h}` }), ` ${number(values[l][h])}`] })));
      box.append(both);
    },
  },
  positions: {
    how: "Loss by position in the window, on held-out text. It falls where the model makes use of more context. The band is one standard error.",
    draw(box, v) {
      const points = v.ranges.map((r) => [(r.begin + r.end + 1) / 2, r.loss, r.error]);
      box.append(lines([{ name: "loss", colour: 1, points }], { x: "position (ranges that double)", y: "nats per token", logarithmic: true, ticks: v.ranges.map((r) => [(r.begin + r.end + 1) / 2, r.end - r.begin === 1 ? `${r.begin}` : `${r.begin}–${r.end - 1}`]) }));
    },
  },
  frequency: {
    how: "Targets in ten groups of equal size, the most frequent tokens first, and what knowing frequencies alone would cost.",
    draw(box, v) {
      box.append(lines([{ name: "model", colour: 1, points: v.groups.map((g, i) => [i + 1, g.loss, g.error]) }, { name: "frequency alone", colour: 2, style: "dashed", points: v.groups.map((g, i) => [i + 1, g.unigram]) }], { x: "tenth of the targets, most frequent first", y: "nats per token", zero: true }),
        rowsTable(["tenth", "share of the text", "loss", "examples"], v.groups.map((g, i) => [String(i + 1), `${number(100 * g.most, 2)} to ${number(100 * g.least, 2)} %`, number(g.loss), g.examples.map(shown).join("  ")])));
    },
  },
  neurons: {
    how: "The units of each layer that fire most selectively: the text at their strongest activations, and the tokens that they raise and lower.",
    draw(box, v) {
      const place = make("div", { class: "two" });
      const show = (i) => place.replaceChildren(...v.layers[i].shown.map((unit) => make("div", { class: "card" }, make("h4", {}, document.createTextNode(unit.name), make("small", { text: `${number(unit.selectivity, 2)} × its usual activation` })),
        make("p", {}, "raises ", make("span", { class: "token", text: unit.raises.map(shown).join("  ") })), make("p", {}, "lowers ", make("span", { class: "token", text: unit.lowers.map(shown).join("  ") })), ...unit.examples.map(exampleText))));
      box.append(rowsTable(["", "units", "dead", "active, mean"], v.layers.map((l) => [`layer ${l.layer}`, String(l.units), String(l.dead), `${(100 * l.mean_active).toFixed(0)} %`])), choice("layer", v.layers.map((l) => String(l.layer)), show), place);
      show(0);
    },
  },
  probes: {
    how: "Accuracy of a linear probe on text it has not seen. The control has fixed random labels of tokens: what a probe learns there says nothing about the model. Dotted: always saying the more frequent label.",
    draw(box, v) {
      const both = make("div", { class: "two" });
      for (const row of v.properties) both.append(make("div", {}, make("h3", { text: row.property }), lines([
        { name: "property", colour: 1, points: row.accuracy.map((y, x) => [x, y]) }, { name: "control", colour: 2, style: "dashed", points: row.control.map((y, x) => [x, y]) },
        { name: "majority", colour: 3, style: "dotted", points: row.accuracy.map((_, x) => [x, row.majority]) }], { y: "accuracy", ticks: v.layers.map((name, i) => [i, name.replace("layer ", "")]), x: "layer" })));
      box.append(both);
    },
  },
  tuned_lens: {
    how: "Divergence of each layer's prediction from the final one, read directly and through one trained affine map per layer. What the map removes is a change of basis, not computation.",
    draw(box, v) {
      const ticks = v.layers.map((name, i) => [i, name]);
      box.append(lines([{ name: "logit lens", colour: 2, points: v.logit_lens.map((y, x) => [x, y]) }, { name: "tuned lens", colour: 1, points: v.tuned_lens.map((y, x) => [x, y]) }], { y: "nats", ticks, zero: true }),
        make("h3", { text: "Its predictions on the prompt" }), make("div", { class: "scroll" }, make("table", { class: "grid" }, make("tr", {}, make("th", {}), ...v.prompt.map((text) => make("th", { text: shown(text).slice(0, 12) }))), ...v.layers.map((name, l) => make("tr", {}, make("th", { text: name }), ...v.tokens[l].map((text) => make("td", { text: shown(text).slice(0, 12) })))))));
    },
  },
  autoencoder: {
    how: "Directions of one layer that are active one at a time. Loss recovered: 100 % if putting the reconstruction in the layer's place costs nothing, 0 % if it is no better than the layer's mean.",
    draw(box, v) {
      box.append(rowsTable(["", ""], [["layer", String(v.layer)], ["features", String(v.features)], ["active per token (L0)", number(v.l0)], ["unexplained variance", `${number(100 * v.unexplained_variance)} %`], ["never active", `${number(100 * v.dead_share)} %`], ["loss", number(v.loss)], ["loss with the reconstruction", number(v.spliced_loss)], ["loss with the mean", number(v.mean_loss)], ["loss recovered", v.loss_recovered === null ? "–" : `${number(100 * v.loss_recovered)} %`], ["trained on", `${v.training_tokens.toLocaleString("en")} tokens, ${v.steps} steps`]]),
        make("h3", { text: "Features" }), make("div", { class: "two" }, ...v.shown.map((f) => make("div", { class: "card" }, make("h4", {}, document.createTextNode(`feature ${f.feature}`), make("small", { text: `fires on ${number(100 * f.fires, 2)} %` })), make("p", {}, "raises ", make("span", { class: "token", text: f.raises.map(shown).join("  ") })), ...f.examples.map(exampleText)))));
    },
  },
  embeddings: {
    how: "The most frequent tokens on the first two principal components of the embedding. Search a token, or point at one, for its nearest neighbours by cosine.",
    draw(box, v) {
      const width = 760, height = 440, pad = 16, canvas = make("canvas", { role: "img", "aria-label": "map of token embeddings" }), out = make("p", { class: "readout", "aria-live": "polite", text: "Point at a token or search." });
      const sx = (x) => pad + ((x - Math.min(...v.x)) / (Math.max(...v.x) - Math.min(...v.x) || 1)) * (width - 2 * pad), sy = (y) => height - pad - ((y - Math.min(...v.y)) / (Math.max(...v.y) - Math.min(...v.y) || 1)) * (height - 2 * pad);
      const places = v.x.map((x, i) => [sx(x), sy(v.y[i])]);
      let at = -1;
      function draw() {
        const ratio = window.devicePixelRatio || 1;
        canvas.width = width * ratio; canvas.height = height * ratio; canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
        const pen = canvas.getContext("2d"), near = at < 0 ? new Set() : new Set(v.neighbours[at]);
        pen.scale(ratio, ratio); pen.font = "10px ui-monospace, Menlo, Consolas, monospace";
        places.forEach(([x, y], i) => { const chosen = i === at || near.has(i); pen.globalAlpha = at < 0 || chosen ? 0.9 : 0.25; pen.fillStyle = css(colour(i === at ? "minus" : chosen ? "accent" : "text")); pen.fillText(shown(v.tokens[i]).slice(0, 10), x, y); });
      }
      function select(i) { at = i; draw(); out.replaceChildren(tokenMark(v.tokens[i]), ": ", ...v.neighbours[i].flatMap((n, k) => [tokenMark(v.tokens[n]), ` ${v.cosines[i][k].toFixed(2)}  `])); }
      canvas.addEventListener("mousemove", (event) => { let best = -1, least = 400; places.forEach(([x, y], i) => { const d = (x + 10 - event.offsetX) ** 2 + (y - 4 - event.offsetY) ** 2; if (d < least) { least = d; best = i; } }); if (best >= 0 && best !== at) select(best); });
      canvas.redraw = draw;
      const search = make("input", { type: "search", placeholder: "search a token", "aria-label": "search a token", oninput: () => { const text = search.value; const i = v.tokens.findIndex((t) => t === text) + 1 || v.tokens.findIndex((t) => t.trim() === text.trim()) + 1 || v.tokens.findIndex((t) => t.includes(text)) + 1; if (text && i) select(i - 1); } });
      draw();
      box.append(make("div", { class: "choice" }, search, make("span", { text: `${v.tokens.length} tokens; two components hold ${number(100 * (v.variance[0] + v.variance[1]), 2)} % of the variance` })), out, make("div", { class: "scroll" }, canvas));
    },
  },
  weights: {
    how: "Effective rank as a share of full rank: near 1 like a random matrix, lower where few directions carry the weight. The spectra are singular values, relative to the largest.",
    draw(box, v) {
      const inside = v.matrices.filter((m) => m.layer !== null), kinds = [...new Set(inside.map((m) => m.kind))], layers = Math.max(...inside.map((m) => m.layer)) + 1;
      const find = (kind, layer) => inside.find((m) => m.kind === kind && m.layer === layer);
      const share = (m) => (m ? m.effective_rank / Math.min(...m.shape) : null);
      const values = kinds.map((kind) => Array.from({ length: layers }, (_, l) => share(find(kind, l))));
      const chart = make("div", {});
      const show = (k) => { const ms = inside.filter((m) => m.kind === kinds[k]); chart.replaceChildren(lines(ms.slice(0, 6).map((m, i) => ({ name: `layer ${m.layer}`, colour: (i % 6) + 1, points: m.spectrum.map((s, x) => [(x + 1) / m.spectrum.length, m.spectrum[0] ? s / m.spectrum[0] : 0]) })), { x: "share of the singular values", y: `singular values of ${kinds[k]}`, zero: true, ticks: [[0.02, "0"], [0.25, "0.25"], [0.5, "0.5"], [0.75, "0.75"], [1, "1"]] })); };
      box.append(heatmap({ values, paint: (x) => sequential(x ** 2), cell: 34, label: "effective rank by matrix and layer", rowLabels: kinds, columnLabels: Array.from({ length: layers }, (_, i) => String(i)),
        describe: (k, l) => { const m = find(kinds[k], l); return m ? [make("b", { text: m.name.replace("transformer.", "") }), ` ${m.shape.join(" × ")}: effective rank ${number(m.effective_rank)}, stable rank ${number(m.stable_rank)}, norm ${number(m.norm)}, ${m.above_random} above random, tail exponent ${number(m.tail)}`] : ["absent"]; }, onSelect: (k) => show(k) }),
        choice("spectra of", kinds, show), chart);
      show(0);
      const outer = v.matrices.filter((m) => m.layer === null);
      if (outer.length) box.append(rowsTable(["matrix", "shape", "effective rank", "norm"], outer.map((m) => [m.name, m.shape.join(" × "), number(m.effective_rank), number(m.norm)])));
    },
  },
  dynamics: {
    how: "The same measurements at the run's checkpoints. Move the slider for the head scores of each step.",
    draw(box, v) {
      const points = (values) => values.map((y, i) => [v.steps[i], y]);
      const best = (kind) => v.heads[kind].map((scores) => Math.max(...scores.flat()));
      if (v.loss.length) box.append(make("h3", { text: "Loss" }), lines([{ name: "held-out text", colour: 1, points: points(v.loss) }], { x: "step", y: "nats per token" }));
      box.append(make("h3", { text: "Best head of each kind" }), lines(["previous", "duplicate", "induction", "sink"].map((kind, i) => ({ name: kind, colour: i + 1, points: points(best(kind)) })), { x: "step", y: "share of attention", zero: true }));
      if (v.lens.length) box.append(make("h3", { text: "Divergence of each layer from the final prediction" }), lines(v.lens[0].slice(0, -1).map((_, l) => l).slice(-6).map((l, i) => ({ name: l ? `layer ${l - 1}` : "embedding", colour: i + 1, points: v.lens.map((row, s) => [v.steps[s], row[l]]) })), { x: "step", y: "nats", zero: true }));
      box.append(make("h3", { text: "Effective rank, mean over layers" }), lines(Object.entries(v.ranks).slice(0, 6).map(([kind, values], i) => ({ name: kind, colour: i + 1, points: points(values) })), { x: "step", y: "" }));
      let kind = "previous", step = v.steps.length - 1;
      const place = make("div", {}), label = make("span", {});
      const show = () => { const s = v.heads[kind][step]; label.textContent = `step ${v.steps[step]}`; place.replaceChildren(heatmap({ values: s, paint: (x) => sequential(x), cell: 34, label: `${kind} scores`, rowLabels: layerLabels(s.length), columnLabels: headLabels(s[0].length), describe: (l, h) => [make("b", { text: `L${l}H${h}` }), ` ${number(s[l][h])}; chance ${number(v.chance[kind])}`] })); };
      const slider = make("input", { type: "range", min: "0", max: String(v.steps.length - 1), value: String(step), "aria-label": "step", oninput: () => { step = Number(slider.value); show(); } });
      box.append(make("h3", { text: "Head scores by step" }), choice("attends to", ["previous", "duplicate", "induction", "sink"], (i) => { kind = ["previous", "duplicate", "induction", "sink"][i]; show(); }), make("div", { class: "choice" }, slider, label), place);
      show();
    },
  },
};
