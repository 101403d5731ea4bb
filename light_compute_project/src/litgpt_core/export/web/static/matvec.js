// Matrix times vector, for matrices of 8-bit integers with one scale for every 32 of them.
//
// Two implementations with the same result, bit for bit: a WebAssembly function of SIMD instructions, whose bytes are put
// together here, and plain JavaScript for browsers without it. Of every block, lane l (0..3) adds up the products of the
// elements l, l + 4, ..., l + 28 in float32; times the scale, the lanes are added up block by block, at last together.

"use strict";

const BLOCK = 32;

/** @param {number} value whole, of any size @returns {number[]} LEB128, as WebAssembly writes numbers */
function leb(value) {
  const bytes = [];
  for (;;) {
    const low = value & 0x7f;
    value >>= 7;
    if ((value === 0 && !(low & 0x40)) || (value === -1 && low & 0x40)) return [...bytes, low];
    bytes.push(low | 0x80);
  }
}

/** @param {number} id @param {number[]} content @returns {number[]} a section of a module */
const section = (id, content) => [id, ...uleb(content.length), ...content];

/** @param {number} value not negative @returns {number[]} */
function uleb(value) {
  const bytes = [];
  do {
    const low = value & 0x7f;
    value >>>= 7;
    bytes.push(value ? low | 0x80 : low);
  } while (value);
  return bytes;
}

/** The bytes of a module with one function, `matvec(codes, scales, x, y, rows, blocks)`, all addresses and counts. */
function moduleBytes() {
  const I32 = 0x7f, V128 = 0x7b;
  const [CODES, SCALES, X, Y, ROWS, BLOCKS, AT, LEFT, SUM, PART, EIGHT] = Array(11).keys();
  const get = (/** @type {number} */ local) => [0x20, local];
  const set = (/** @type {number} */ local) => [0x21, local];
  const simd = (/** @type {number} */ code) => [0xfd, ...uleb(code)];
  const load = (/** @type {number} */ code, /** @type {number} */ offset) => [...simd(code), 0, ...uleb(offset)];
  const add = (/** @type {number} */ local, /** @type {number} */ by) => [...get(local), 0x41, ...leb(by), 0x6a, ...set(local)];
  const LOAD = 0x00, LOAD8X8 = 0x01, SPLAT = 0x09, CONST = 0x0c, LANE = 0x1f;
  const LOW = 0xa7, HIGH = 0xa8, ADD = 0xe4, MUL = 0xe6, CONVERT = 0xfa;

  const product = (/** @type {number} */ half, /** @type {number} */ offset, /** @type {boolean} */ first) => [
    ...get(EIGHT), ...simd(half), ...simd(CONVERT), ...get(AT), ...load(LOAD, offset), ...simd(MUL),
    ...(first ? [] : [...get(PART), ...simd(ADD)]), ...set(PART),
  ];
  const block = [];
  for (let group = 0; group < 4; group++) {
    block.push(...get(CODES), ...load(LOAD8X8, 8 * group), ...set(EIGHT));
    block.push(...product(LOW, 32 * group, group === 0), ...product(HIGH, 32 * group + 16, false));
  }
  block.push(...get(PART), ...get(SCALES), ...load(SPLAT, 0), ...simd(MUL), ...get(SUM), ...simd(ADD), ...set(SUM));
  block.push(...add(CODES, 32), ...add(SCALES, 4), ...add(AT, 128));
  block.push(...get(LEFT), 0x41, 1, 0x6b, 0x22, LEFT, 0x0d, 0);
  const lane = (/** @type {number} */ number) => [...get(SUM), ...simd(LANE), number];
  const row = [
    ...get(X), ...set(AT), ...simd(CONST), ...Array(16).fill(0), ...set(SUM), ...get(BLOCKS), ...set(LEFT),
    0x03, 0x40, ...block, 0x0b,
    ...get(Y), ...lane(0), ...lane(1), 0x92, ...lane(2), ...lane(3), 0x92, 0x92, 0x38, 2, 0,
    ...add(Y, 4), ...get(ROWS), 0x41, 1, 0x6b, 0x22, ROWS, 0x0d, 0,
  ];
  const body = [2, 2, I32, 3, V128, 0x03, 0x40, ...row, 0x0b, 0x0b];
  const name = (/** @type {string} */ text) => [text.length, ...[...text].map((letter) => letter.charCodeAt(0))];
  return new Uint8Array([
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, [1, 0x60, 6, I32, I32, I32, I32, I32, I32, 0]),
    ...section(2, [1, ...name("page"), ...name("memory"), 2, 0, 1]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...name("matvec"), 0, 0]),
    ...section(10, [1, ...uleb(body.length), ...body]),
  ]);
}

/**
 * The same in JavaScript; addresses count bytes of `buffer`.
 * @param {ArrayBuffer} buffer
 * @returns {(codes: number, scales: number, x: number, y: number, rows: number, blocks: number) => void}
 */
function plainMatvec(buffer) {
  const bytes = new Int8Array(buffer), floats = new Float32Array(buffer), round = Math.fround;
  return (codes, scales, x, y, rows, blocks) => {
    const first = x >> 2;
    let scale = scales >> 2;
    for (let row = 0; row < rows; row++) {
      let a = 0, b = 0, c = 0, d = 0, at = first;
      for (let block = 0; block < blocks; block++) {
        let p = 0, q = 0, r = 0, s = 0;
        for (let k = 0; k < BLOCK; k += 4) {
          p = round(p + round(bytes[codes + k] * floats[at + k]));
          q = round(q + round(bytes[codes + k + 1] * floats[at + k + 1]));
          r = round(r + round(bytes[codes + k + 2] * floats[at + k + 2]));
          s = round(s + round(bytes[codes + k + 3] * floats[at + k + 3]));
        }
        const factor = floats[scale++];
        a = round(a + round(p * factor));
        b = round(b + round(q * factor));
        c = round(c + round(r * factor));
        d = round(d + round(s * factor));
        codes += BLOCK;
        at += BLOCK;
      }
      floats[(y >> 2) + row] = round(round(a + b) + round(c + d));
    }
  };
}

/**
 * Memory of at least `size` bytes and the function that multiplies in it.
 * @param {number} size
 * @param {boolean} [plain] without WebAssembly
 */
function makeMemory(size, plain = false) {
  if (!plain) {
    try {
      const memory = new WebAssembly.Memory({ initial: Math.ceil(size / 65536) });
      const instance = new WebAssembly.Instance(new WebAssembly.Module(moduleBytes()), { page: { memory } });
      return { buffer: memory.buffer, matvec: instance.exports.matvec, simd: true };
    } catch {
      // no WebAssembly, or none with SIMD
    }
  }
  const buffer = new ArrayBuffer(Math.ceil(size / 16) * 16);
  return { buffer, matvec: plainMatvec(buffer), simd: false };
}
