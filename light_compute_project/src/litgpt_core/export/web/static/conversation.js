// What is read before an answer, and what of it is shown: prompts, chat turns, stop strings.

"use strict";

/**
 * @typedef {{text: string} | {id: number}} Part of a prompt; in a text, "\ue000" stands for what the user says
 * @typedef {{first: Part[], next: Part[], stopIds: number[], stopStrings: string[]}} Chat
 */

const USER = "\ue000";

/**
 * Ids of one turn: the parts around what the user says. Special tokens that the user spells are ordinary text.
 * @param {Vocabulary} vocabulary @param {Part[]} parts @param {string} said @returns {number[]}
 */
function turnIds(vocabulary, parts, said) {
  return parts.flatMap((part) => {
    if ("id" in part) return [part.id];
    const at = part.text.indexOf(USER);
    if (at < 0) return vocabulary.encode(part.text);
    return vocabulary.encode(part.text.replace(USER, () => said), [at, at + said.length]);
  });
}

/** Ids that a text begins with: bos where the model was trained so. @param {Vocabulary} vocabulary @param {number[]} ids */
function withStart(vocabulary, ids) {
  const { bos, useBos, eos } = vocabulary.definition;
  if (useBos && bos !== null && ids[0] !== bos) return [bos, ...ids];
  return ids.length ? ids : [eos];
}

/** The text of new tokens, as far as it is certain: no half character, nothing that may become a stop string. */
class Answer {
  /** @param {Vocabulary} vocabulary @param {string[]} stops */
  constructor(vocabulary, stops) {
    this.vocabulary = vocabulary;
    this.stops = stops;
    this.decoder = new TextDecoder();
    this.text = "";
    this.ended = false; // a stop string has come
  }

  /** @param {number} id */
  add(id) {
    this.text += this.decoder.decode(this.vocabulary.table[id], { stream: true });
    const found = this.stops.map((stop) => this.text.indexOf(stop)).filter((at) => at >= 0);
    if (found.length) {
      this.text = this.text.slice(0, Math.min(...found));
      this.ended = true;
    }
  }

  /** Without the end that may be the beginning of a stop string. */
  certain() {
    if (this.ended) return this.text;
    const held = this.stops.map((stop) => {
      for (let size = Math.min(stop.length - 1, this.text.length); size > 0; size--) {
        if (this.text.endsWith(stop.slice(0, size))) return size;
      }
      return 0;
    });
    return this.text.slice(0, this.text.length - Math.max(0, ...held));
  }

  /** All of it, at the end. */
  finish() {
    if (!this.ended) this.text += this.decoder.decode();
    return this.text;
  }
}
