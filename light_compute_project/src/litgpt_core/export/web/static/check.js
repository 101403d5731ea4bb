// Runs the engine of an exported page in node: `node check.js FILE.html < job.json`.
//
// The job: texts to encode; ids whose logits are wanted; a prompt, to be continued greedily by `most` tokens. The answer is
// JSON; logits as base 64 of float32. With `plain`, the first logits are computed without WebAssembly too.

"use strict";

const fs = require("node:fs");
const vm = require("node:vm");

const html = fs.readFileSync(process.argv[2], "utf8");
const job = JSON.parse(fs.readFileSync(0, "utf8"));

/** @param {string} opening @param {number} [from] */
function element(opening, from = 0) {
  const start = html.indexOf(opening, from);
  if (start < 0) return null;
  const end = html.indexOf("</script>", start);
  return { text: html.slice(start + opening.length, end), end };
}

function* weightChunks() {
  for (let at = 0, found; (found = element('<script type="text/plain" class="weights">', at)); at = found.end) yield found.text;
}

vm.runInThisContext(`${element('<script id="engine">').text}
globalThis.engine = { Vocabulary, Weights, Model, Session, withStart, turnIds };`);
const { Vocabulary, Weights, Model, Session, withStart, turnIds } = globalThis.engine;
const content = JSON.parse(element('<script type="application/json" id="model">').text);
const vocabulary = new Vocabulary(content.vocabulary);
const started = performance.now();
const model = new Model(content.config, new Weights(content, weightChunks()));
const loaded = performance.now() - started;

/** @param {any} own @param {number[]} ids @returns {Buffer} logits after each id */
function logits(own, ids) {
  own.clear();
  return Buffer.concat(ids.map((id) => Buffer.from(Float32Array.from(own.logits([id])).buffer)));
}

const answer = {
  version: process.version,
  simd: model.weights.simd,
  load_ms: loaded,
  ids: job.texts.map((/** @type {string} */ text) => {
    try {
      return vocabulary.encode(text);
    } catch {
      return null;
    }
  }),
  turns: (job.turns ?? []).map((/** @type {any} */ said) => withStart(vocabulary, turnIds(vocabulary, content.chat.first, said))),
  logits: logits(model, job.ids).toString("base64"),
};
if (job.plain) {
  const other = new Model(content.config, new Weights(content, weightChunks(), true));
  answer.plain = logits(other, job.plain).equals(logits(model, job.plain));
}
const session = new Session(model, [...job.prompt]);
const how = { temperature: 0, topK: 0, seed: 0, stops: new Set(), ...job.how, most: job.most };
const times = [];
answer.chosen = [];
for (const id of session.generate(how)) {
  answer.chosen.push(id);
  times.push(performance.now());
}
answer.tokens_per_s = times.length > 1 ? ((times.length - 1) * 1000) / (times[times.length - 1] - times[0]) : null;
process.stdout.write(JSON.stringify(answer));
