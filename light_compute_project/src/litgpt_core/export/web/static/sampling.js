// From logits to a token, and token after token, as the Python engine does it: equal seeds give equal texts.

"use strict";

/** The Mersenne Twister (MT19937, Matsumoto & Nishimura 1998), seeded and read as torch.Generator does. */
class Rng {
  /** @param {number} seed whole, from 0 to 2^32 - 1 */
  constructor(seed) {
    this.state = new Uint32Array(624);
    this.state[0] = seed;
    for (let n = 1; n < 624; n++) {
      const before = this.state[n - 1] ^ (this.state[n - 1] >>> 30);
      this.state[n] = Math.imul(1812433253, before) + n;
    }
    this.at = 624;
  }

  /** 32 random bits. */
  bits() {
    const s = this.state;
    if (this.at === 624) {
      for (let n = 0; n < 624; n++) {
        const y = (s[n] & 0x80000000) | (s[(n + 1) % 624] & 0x7fffffff);
        s[n] = s[(n + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      this.at = 0;
    }
    let y = s[this.at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** In [0, 1): the lower 53 of 64 bits. */
  next() {
    const high = this.bits() & 0x1fffff, low = this.bits();
    return (high * 2 ** 32 + low) * 2 ** -53;
  }
}

/**
 * The token at which the probabilities, most probable first where there is a `topK`, reach `uniform`.
 * @param {Float32Array} logits @param {{temperature: number, topK: number}} how topK 0: all @param {number} uniform in [0, 1)
 * @returns {number}
 */
function sample(logits, how, uniform) {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id] > logits[best]) best = id;
  if (!Number.isFinite(logits[best])) throw new Error("The model returned NaN or infinite logits.");
  if (how.temperature < 1e-6) return best;
  const ids = how.topK && how.topK < logits.length ? largest(logits, how.topK) : Array.from(logits.keys());
  const temperature = Math.min(how.temperature, 1e30);
  let sum = 0;
  const reached = ids.map((id) => (sum += Math.exp((logits[id] - logits[best]) / temperature)));
  const found = reached.findIndex((each) => each > uniform * sum);
  return ids[found < 0 ? ids.length - 1 : found];
}

/** Ids of the largest values, largest first. @param {Float32Array} values @param {number} count @returns {number[]} */
function largest(values, count) {
  const least = Float32Array.from(values).sort()[values.length - count];
  const ids = Array.from(values.keys()).filter((id) => values[id] >= least);
  return ids.sort((a, b) => values[b] - values[a] || a - b).slice(0, count);
}

/** A text and the model that has read a part of it. */
class Session {
  /** @param {Model} model @param {number[]} ids the text so far; new ones are added */
  constructor(model, ids) {
    this.model = model;
    this.ids = ids;
    this.start = 0; // ids before it are forgotten
    model.clear();
  }

  /**
   * New ids up to a stop id, which is not among them. Where a text outgrows the window, all but its last half is forgotten.
   * @param {{temperature: number, topK: number, seed: number, most: number, stops: Set<number>}} how
   * @returns {Generator<number, void>}
   */
  *generate(how) {
    const rng = new Rng(how.seed >>> 0), { model, ids } = this, { length } = model.config;
    for (let made = 0; made < how.most; made++) {
      if (ids.length - this.start > length) {
        this.start = ids.length - Math.max(1, length >> 1);
        model.clear();
      }
      const logits = model.logits(ids.slice(this.start + model.length));
      const id = sample(logits, how, rng.next());
      if (how.stops.has(id)) return;
      ids.push(id);
      yield id;
    }
  }
}
