// Text to ids and back. Two kinds, as in GGUF files:
//
//   gpt2     bytes, written as visible characters, merged within words in the order of `merges`
//   llama    characters, merged by score; what is no token becomes bytes

"use strict";

/**
 * @typedef {{
 *   model: "gpt2" | "llama", tokens: string[], types: number[], merges?: string[], scores?: number[], steps: string[],
 *   whole: boolean, leading: boolean, literal: boolean, parse: boolean, bos: number | null, useBos: boolean, eos: number,
 * }} Definition
 */

const NORMAL = 1, CONTROL = 3, USER_DEFINED = 4, BYTE = 6;
const MARK = "\u2581";

/** A visible character for each byte: itself where it is one in Latin-1, else the next from U+0100 on. */
const LETTERS = (() => {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const visible = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    return String.fromCodePoint(visible ? byte : next++);
  });
})();

class Vocabulary {
  /** @param {Definition} definition */
  constructor(definition) {
    this.definition = definition;
    const { tokens, types } = definition;
    /** @type {Map<string, number>} */
    this.ids = new Map();
    /** @type {Map<string, number>} */
    this.special = new Map();
    tokens.forEach((token, id) => {
      if (types[id] === CONTROL || types[id] === USER_DEFINED) this.special.set(token, id);
      if (types[id] === NORMAL || types[id] === USER_DEFINED) this.ids.set(token, id);
    });
    const names = [...this.special.keys()].filter((name) => name).sort((a, b) => b.length - a.length);
    this.specials = names.length ? new RegExp(names.map(escaped).join("|"), "gu") : null;
    this.steps = definition.steps.map((step) => new RegExp(step, "gu"));
    this.ranks = new Map((definition.merges ?? []).map((pair, rank) => [pair, rank]));
    const values = new Map(LETTERS.map((letter, byte) => [letter, byte]));
    const encoder = new TextEncoder();
    /** @type {Uint8Array[]} */
    this.table = tokens.map((token, id) => {
      if (types[id] === CONTROL) return new Uint8Array(0);
      if (definition.model === "gpt2" && types[id] === NORMAL) return Uint8Array.from([...token], (letter) => values.get(letter) ?? 63);
      if (types[id] === BYTE) return Uint8Array.of(parseInt(token.slice(3, 5), 16));
      return types[id] === NORMAL || types[id] === USER_DEFINED ? encoder.encode(token.replaceAll(MARK, " ")) : new Uint8Array(0);
    });
    this.byteIds = new Map(tokens.flatMap((token, id) => (types[id] === BYTE ? [[this.table[id][0], id]] : [])));
  }

  /**
   * Ids of a text, without bos.
   * @param {string} text
   * @param {[number, number]} [plain] a range in which special tokens are ordinary text: what a user has typed
   * @returns {number[]}
   */
  encode(text, plain = [0, 0]) {
    const ids = [];
    let done = 0;
    for (const found of this.definition.parse && this.specials ? text.matchAll(this.specials) : []) {
      const typed = found.index >= plain[0] && found.index + found[0].length <= plain[1];
      ids.push(...this.encodePlain(text.slice(done, found.index)));
      ids.push(...(typed ? this.encodePlain(found[0]) : [this.special.get(found[0]) ?? 0]));
      done = found.index + found[0].length;
    }
    return [...ids, ...this.encodePlain(text.slice(done))];
  }

  /** @param {string} text @returns {number[]} */
  encodePlain(text) {
    if (!text) return [];
    return this.definition.model === "gpt2" ? this.encodeBytes(text) : this.encodeScored(text);
  }

  /** @param {string} text @returns {number[]} */
  encodeBytes(text) {
    const ids = [], encoder = new TextEncoder();
    for (const word of this.words(text)) {
      const symbols = Array.from(encoder.encode(word), (byte) => LETTERS[byte]);
      const whole = this.definition.whole ? this.ids.get(symbols.join("")) : undefined;
      const parts = whole === undefined ? merged(symbols, (a, b) => this.ranks.get(`${a} ${b}`)) : [symbols.join("")];
      for (const symbol of parts) {
        const id = this.ids.get(symbol);
        if (id !== undefined) ids.push(id); // some vocabularies lack byte values that no text has
      }
    }
    return ids;
  }

  /** The words that merging stays within. @param {string} text @returns {string[]} */
  words(text) {
    let parts = [text];
    for (const step of this.steps) {
      parts = parts.flatMap((part) => {
        const cut = [];
        let done = 0;
        for (const found of part.matchAll(step)) {
          if (found.index > done) cut.push(part.slice(done, found.index));
          cut.push(found[0]);
          done = found.index + found[0].length;
        }
        return done < part.length ? [...cut, part.slice(done)] : cut;
      });
    }
    return parts;
  }

  /** @param {string} text @returns {number[]} */
  encodeScored(text) {
    const ids = [], { scores = [], literal, leading } = this.definition;
    const rank = (/** @type {string} */ a, /** @type {string} */ b) => {
      const id = this.ids.get(a + b);
      return id === undefined ? undefined : -scores[id];
    };
    for (const part of literal ? text.split(/(\u2581)/) : [(leading ? " " : "") + text]) {
      const own = literal && part === MARK;
      for (const symbol of own ? [part] : merged([...part.replaceAll(" ", MARK)], rank)) {
        const id = own ? undefined : this.ids.get(symbol);
        ids.push(...(id === undefined ? this.bytesOf(symbol) : [id]));
      }
    }
    return ids;
  }

  /** @param {string} symbol @returns {number[]} */
  bytesOf(symbol) {
    if (!this.byteIds.size) throw new Error(`The character ${JSON.stringify(symbol)} is not in the vocabulary.`);
    return Array.from(new TextEncoder().encode(symbol), (byte) => this.byteIds.get(byte) ?? 0);
  }
}

/** @param {string} text @returns {string} a pattern that matches it */
const escaped = (text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");

/**
 * Joins the pair of neighbours of the lowest rank, the first of equal ones, again and again.
 * A heap has the candidates, two lists the neighbours; a candidate whose parts have changed is skipped.
 * @param {string[]} symbols @param {(a: string, b: string) => number | undefined} rank undefined: never
 * @returns {string[]}
 */
function merged(symbols, rank) {
  const after = symbols.map((_, at) => (at + 1 < symbols.length ? at + 1 : -1)), before = symbols.map((_, at) => at - 1);
  /** @type {[number, number, string][]} */
  const heap = [];
  const less = (/** @type {number} */ a, /** @type {number} */ b) =>
    heap[a][0] < heap[b][0] || (heap[a][0] === heap[b][0] && heap[a][1] < heap[b][1]);
  const swap = (/** @type {number} */ a, /** @type {number} */ b) => ([heap[a], heap[b]] = [heap[b], heap[a]]);
  const push = (/** @type {[number, number, string]} */ entry) => {
    let at = heap.push(entry) - 1;
    for (let up = (at - 1) >> 1; at > 0 && less(at, up); at = up, up = (at - 1) >> 1) swap(at, up);
  };
  const pop = () => {
    const top = heap[0], last = /** @type {[number, number, string]} */ (heap.pop());
    if (heap.length) {
      heap[0] = last;
      for (let at = 0; ; ) {
        let least = at;
        for (const child of [2 * at + 1, 2 * at + 2]) if (child < heap.length && less(child, least)) least = child;
        if (least === at) break;
        swap(at, least);
        at = least;
      }
    }
    return top;
  };
  const propose = (/** @type {number} */ left) => {
    if (left < 0 || after[left] < 0) return;
    const place = rank(symbols[left], symbols[after[left]]);
    if (place !== undefined) push([place, left, symbols[left] + symbols[after[left]]]);
  };
  symbols.forEach((_, at) => propose(at));
  while (heap.length) {
    const [, left, joined] = pop(), right = after[left];
    if (!symbols[left] || right < 0 || symbols[left] + symbols[right] !== joined) continue;
    symbols[left] = joined;
    symbols[right] = "";
    after[left] = after[right];
    if (after[right] >= 0) before[after[right]] = left;
    propose(before[left]);
    propose(left);
  }
  return symbols.filter((symbol) => symbol);
}
