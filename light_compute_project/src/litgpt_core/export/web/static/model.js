// The model: one token at a time, with a cache of keys and values. Numbers are float32, sums of attention float64.

"use strict";

/**
 * @typedef {{plain: boolean, activation: "silu" | "gelu" | "gelu_tanh", window: number | null, rope: number}} Layer
 * @typedef {{
 *   width: number, heads: number, groups: number, headSize: number, hidden: number, length: number, vocabulary: number,
 *   rms: boolean, eps: number, parallel: boolean, shared: boolean, normAllHeads: boolean, interleaved: boolean,
 *   scale: number, scoreCap: number | null, logitCap: number | null, embeddingScale: number, condense: number,
 *   ropeScaling: number, thetas: number[][], layers: Layer[],
 * }} Config
 */

/** @param {number} x */
const silu = (x) => x / (1 + Math.exp(-x));

/** @param {number} x */
const geluTanh = (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));

/** @param {number} x */
const gelu = (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2));

/**
 * The error function, to about 1e-15: its Taylor series near zero, a continued fraction of 1 - erf further out.
 * @param {number} x
 */
function erf(x) {
  const size = Math.abs(x);
  if (size > 6) return Math.sign(x);
  if (size < 2.5) {
    let term = x, sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= -(x * x) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (size + fraction);
  return Math.sign(x) * (1 - Math.exp(-size * size) / Math.sqrt(Math.PI) / (size + fraction));
}

const CURVES = { silu, gelu, gelu_tanh: geluTanh };

/** Keys and values of the tokens so far, for every group; grows by doubling. */
class Cache {
  /** @param {number} groups @param {number} size of a head */
  constructor(groups, size) {
    this.groups = groups;
    this.size = size;
    this.room = 0;
    this.grow(64);
  }

  /** @param {number} room tokens */
  grow(room) {
    const wider = (/** @type {Float32Array | undefined} */ old) => {
      const made = new Float32Array(this.groups * room * this.size);
      for (let g = 0; old && g < this.groups; g++) {
        made.set(old.subarray(g * this.room * this.size, (g + 1) * this.room * this.size), g * room * this.size);
      }
      return made;
    };
    this.keys = wider(this.keys);
    this.values = wider(this.values);
    this.room = room;
  }
}

class Model {
  /** @param {Config} config @param {Weights} weights */
  constructor(config, weights) {
    this.config = config;
    this.weights = weights;
    this.length = 0;
    this.caches = config.layers.map(() => new Cache(config.groups, config.headSize));
    this.qkv = new Float32Array((config.heads + 2 * config.groups) * config.headSize);
    this.mixed = new Float32Array(config.heads * config.headSize);
    this.hidden = [new Float32Array(config.hidden), new Float32Array(config.hidden)];
    this.scores = new Float64Array(64);
    this.logitValues = new Float32Array(config.vocabulary);
  }

  /** Forget all tokens. */
  clear() {
    this.length = 0;
  }

  /** Logits of the token after `ids`, which follow all earlier ones. @param {number[]} ids @returns {Float32Array} */
  logits(ids) {
    let x = new Float32Array(0);
    for (const id of ids) x = this.step(id);
    this.linear("lm_head", this.norm(x, "transformer.ln_f"), this.logitValues);
    return this.cap(this.logitValues, this.config.logitCap);
  }

  /** What the blocks make of one token, which joins the caches. @param {number} id @returns {Float32Array} (C) */
  step(id) {
    const c = this.config, x = new Float32Array(c.width);
    if (this.length >= c.length) throw new Error(`The window of ${c.length} tokens is full.`);
    this.weights.matrix("transformer.wte").row(id, x);
    for (let k = 0; k < c.width && c.embeddingScale !== 1; k++) x[k] *= c.embeddingScale;
    const positions = this.weights.vectors.get("transformer.wpe.weight");
    for (let k = 0; positions && k < c.width; k++) x[k] += positions[this.length * c.width + k];
    const turns = c.thetas.map((theta) => this.turn(theta));
    c.layers.forEach((layer, number) => this.block(x, layer, number, turns[layer.rope]));
    this.length++;
    return x;
  }

  /** Cosines and sines at the current position. @param {number[]} theta */
  turn(theta) {
    const position = Math.fround(this.length / this.config.condense), s = this.config.ropeScaling;
    const angles = theta.map((each) => Math.fround(position * each));
    return { cos: angles.map((a) => Math.cos(a) * s), sin: angles.map((a) => Math.sin(a) * s) };
  }

  /**
   * x plus attention and network, in place.
   * @param {Float32Array} x @param {Layer} layer @param {number} number @param {{cos: number[], sin: number[]} | undefined} turn
   */
  block(x, layer, number, turn) {
    const c = this.config, at = `transformer.h.${number}.`;
    let normed = this.norm(x, `${at}norm_1`);
    const attended = this.norm(this.attention(normed, layer, number, turn), `${at}post_attention_norm`);
    if (!c.parallel) add(x, attended);
    if (!c.shared) normed = this.norm(x, `${at}norm_2`);
    const fed = this.norm(this.network(normed, layer, `${at}mlp.`), `${at}post_mlp_norm`);
    if (c.parallel) add(x, attended);
    add(x, fed);
  }

  /** The norm of that name; without one, x. @param {Float32Array} x @param {string} name @returns {Float32Array} */
  norm(x, name) {
    const weight = this.weights.vectors.get(`${name}.weight`);
    return weight ? this.normed(x, weight, this.weights.vectors.get(`${name}.bias`)) : x;
  }

  /** @param {Float32Array} x @param {Float32Array} weight @param {Float32Array | undefined} bias @returns {Float32Array} */
  normed(x, weight, bias) {
    const { rms, eps } = this.config, y = new Float32Array(x.length);
    let mean = 0, squares = 0;
    if (!rms) {
      for (const each of x) mean += each;
      mean /= x.length;
    }
    for (const each of x) squares += (each - mean) * (each - mean);
    const factor = 1 / Math.sqrt(squares / x.length + eps);
    for (let k = 0; k < x.length; k++) y[k] = (x[k] - mean) * factor * weight[k] + (bias ? bias[k] : 0);
    return y;
  }

  /** W x + b @param {string} name @param {Float32Array} x @param {Float32Array} y */
  linear(name, x, y) {
    this.weights.matrix(name).times(x, y);
    const bias = this.weights.vectors.get(`${name}.bias`);
    if (bias) add(y, bias);
  }

  /**
   * Every head reads the tokens so far; those of one group share keys and values.
   * @param {Float32Array} x @param {Layer} layer @param {number} number @param {{cos: number[], sin: number[]} | undefined} turn
   * @returns {Float32Array} (C)
   */
  attention(x, layer, number, turn) {
    const c = this.config, size = c.headSize, at = `transformer.h.${number}.attn.`, cache = this.caches[number];
    this.linear(`${at}qkv`, x, this.qkv);
    const keys = c.heads * size, values = keys + c.groups * size;
    this.normHeads(0, keys, `${at}norm_q`);
    this.normHeads(keys, values, `${at}norm_k`);
    if (turn) for (let from = 0; from < values; from += size) this.rotate(this.qkv.subarray(from, from + size), turn);
    if (this.length >= cache.room) cache.grow(Math.min(2 * cache.room, Math.max(c.length, 64)));
    for (let g = 0; g < c.groups; g++) {
      const place = (g * cache.room + this.length) * size;
      cache.keys.set(this.qkv.subarray(keys + g * size, keys + (g + 1) * size), place);
      cache.values.set(this.qkv.subarray(values + g * size, values + (g + 1) * size), place);
    }
    const first = layer.window === null ? 0 : Math.max(0, this.length + 1 - layer.window);
    for (let head = 0; head < c.heads; head++) this.attend(head, cache, first);
    const y = new Float32Array(c.width);
    this.linear(`${at}proj`, this.mixed, y);
    return y;
  }

  /** Queries or keys, each head on its own or all together, in place. @param {number} from @param {number} to @param {string} name */
  normHeads(from, to, name) {
    const size = this.config.normAllHeads ? to - from : this.config.headSize;
    if (!this.weights.vectors.has(`${name}.weight`)) return;
    for (; from < to; from += size) this.qkv.set(this.norm(this.qkv.subarray(from, from + size), name), from);
  }

  /** Turns the first numbers of a head in pairs. @param {Float32Array} head @param {{cos: number[], sin: number[]}} turn */
  rotate(head, { cos, sin }) {
    const half = cos.length, { interleaved } = this.config, old = head.slice(0, 2 * half);
    for (let k = 0; k < half; k++) {
      const a = interleaved ? old[2 * k] : old[k], b = interleaved ? old[2 * k + 1] : old[k + half];
      head[k] = a * cos[k] - b * sin[k];
      head[k + half] = b * cos[k] + a * sin[k];
    }
  }

  /** What one query reads. @param {number} head @param {Cache} cache @param {number} first the earliest token that it sees */
  attend(head, cache, first) {
    const c = this.config, size = c.headSize, count = this.length + 1 - first;
    if (this.scores.length < count) this.scores = new Float64Array(2 * count);
    const { scores, qkv, mixed } = this, { keys, values } = cache;
    const from = head * size, start = (Math.floor((head * c.groups) / c.heads) * cache.room + first) * size;
    let top = -Infinity;
    for (let token = 0, place = start; token < count; token++, place += size) {
      let sum = 0;
      for (let k = 0; k < size; k++) sum += qkv[from + k] * keys[place + k];
      sum *= c.scale;
      if (c.scoreCap !== null) sum = c.scoreCap * Math.tanh(sum / c.scoreCap);
      scores[token] = sum;
      if (sum > top) top = sum;
    }
    let total = 0;
    for (let token = 0; token < count; token++) total += scores[token] = Math.exp(scores[token] - top);
    mixed.fill(0, from, from + size);
    for (let token = 0, place = start; token < count; token++, place += size) {
      const share = scores[token] / total;
      for (let k = 0; k < size; k++) mixed[from + k] += share * values[place + k];
    }
  }

  /** The network between attentions. @param {Float32Array} x @param {Layer} layer @param {string} at @returns {Float32Array} */
  network(x, layer, at) {
    const [gate, value] = this.hidden, y = new Float32Array(this.config.width), curve = CURVES[layer.activation];
    this.linear(`${at}${layer.plain ? "fc" : "fc_1"}`, x, gate);
    for (let k = 0; k < gate.length; k++) gate[k] = curve(gate[k]);
    if (!layer.plain) {
      this.linear(`${at}fc_2`, x, value);
      for (let k = 0; k < gate.length; k++) gate[k] *= value[k];
    }
    this.linear(`${at}proj`, gate, y);
    return y;
  }

  /** @param {Float32Array} x @param {number | null} cap @returns {Float32Array} */
  cap(x, cap) {
    for (let k = 0; cap !== null && k < x.length; k++) x[k] = cap * Math.tanh(x[k] / cap);
    return x;
  }
}

/** a += b @param {Float32Array} a @param {Float32Array} b */
function add(a, b) {
  for (let k = 0; k < a.length; k++) a[k] += b[k];
}
