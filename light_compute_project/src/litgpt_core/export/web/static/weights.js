// The weights of the page: base 64 in several elements, one stream of bytes.
//
//   integers of all matrices, one after the other    into the memory of `matvec`
//   their scales, float16                            there too, as float32
//   vectors (norms, biases), positions, float32      arrays

"use strict";

const DIGITS = (() => {
  const table = new Uint8Array(128).fill(64);
  [..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"].forEach((letter, value) => {
    table[letter.charCodeAt(0)] = value;
  });
  return table;
})();

/** @param {string} text base 64 @returns {Uint8Array} */
function decode64(text) {
  const bytes = new Uint8Array((text.length * 3) >> 2);
  let bits = 0, value = 0, count = 0;
  for (let at = 0; at < text.length; at++) {
    const digit = DIGITS[text.charCodeAt(at) & 127];
    if (digit === 64) continue; // line ends, "=" at the end
    value = ((value << 6) | digit) & 0xffffff;
    bits += 6;
    if (bits >= 8) bytes[count++] = value >> (bits -= 8);
  }
  return bytes.subarray(0, count);
}

/** @param {number} half the bits of a float16 @returns {number} */
function fromHalf(half) {
  const sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return exponent === 31 ? NaN : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** A matrix in the memory. */
class Matrix {
  /** @param {Weights} weights @param {{rows: number, columns: number}} shape @param {number} codes @param {number} scales */
  constructor(weights, shape, codes, scales) {
    this.weights = weights;
    this.rows = shape.rows;
    this.columns = shape.columns;
    this.blocks = Math.ceil(shape.columns / BLOCK);
    this.codes = codes;
    this.scales = scales;
  }

  /** W x @param {Float32Array} x @param {Float32Array} y receives `rows` numbers */
  times(x, y) {
    const { input, output, floats } = this.weights;
    floats.set(x, input >> 2);
    floats.fill(0, (input >> 2) + x.length, (input >> 2) + this.blocks * BLOCK);
    this.weights.matvec(this.codes, this.scales, input, output, this.rows, this.blocks);
    y.set(floats.subarray(output >> 2, (output >> 2) + this.rows));
  }

  /** One row @param {number} row @param {Float32Array} y receives `columns` numbers */
  row(row, y) {
    const { bytes, floats } = this.weights;
    const start = this.codes + row * this.blocks * BLOCK, scale = (this.scales >> 2) + row * this.blocks;
    for (let k = 0; k < this.columns; k++) y[k] = bytes[start + k] * floats[scale + (k >> 5)];
  }
}

/** All weights by name. */
class Weights {
  /**
   * @param {{tied: boolean, matrices: {name: string, rows: number, columns: number}[], vectors: {name: string, size: number}[]}} header
   * @param {Iterable<string>} chunks base 64
   * @param {boolean} [plain] without WebAssembly
   */
  constructor(header, chunks, plain = false) {
    const blocks = header.matrices.map((each) => each.rows * Math.ceil(each.columns / BLOCK));
    const count = blocks.reduce((sum, each) => sum + each, 0);
    const widest = Math.max(...header.matrices.map((each) => each.columns)) + BLOCK;
    const highest = Math.max(...header.matrices.map((each) => each.rows));
    const scales = count * BLOCK;
    this.input = scales + count * 4 + ((16 - ((count * 4) % 16)) % 16);
    this.output = this.input + 4 * Math.ceil(widest / 4) * 4;
    const memory = makeMemory(this.output + 4 * highest, plain);
    this.simd = memory.simd;
    this.matvec = /** @type {(...sizes: number[]) => void} */ (memory.matvec);
    this.bytes = new Int8Array(memory.buffer);
    this.floats = new Float32Array(memory.buffer);
    const rest = new Uint8Array(count * 2 + 4 * header.vectors.reduce((sum, each) => sum + each.size, 0));
    this.read(chunks, scales, rest);
    for (let block = 0; block < count; block++) {
      this.floats[(scales >> 2) + block] = fromHalf(rest[2 * block] | (rest[2 * block + 1] << 8));
    }
    /** @type {Map<string, Matrix>} */
    this.matrices = new Map();
    let first = 0;
    header.matrices.forEach((each, number) => {
      this.matrices.set(each.name, new Matrix(this, each, first * BLOCK, scales + first * 4));
      first += blocks[number];
    });
    if (header.tied) this.matrices.set("lm_head", this.matrix("transformer.wte"));
    /** @type {Map<string, Float32Array>} */
    this.vectors = new Map();
    const view = new DataView(rest.buffer, count * 2);
    let place = 0;
    for (const each of header.vectors) {
      const values = new Float32Array(each.size);
      for (let k = 0; k < each.size; k++, place += 4) values[k] = view.getFloat32(place, true);
      this.vectors.set(each.name, values);
    }
  }

  /** @param {Iterable<string>} chunks @param {number} codes bytes of integers @param {Uint8Array} rest what follows them */
  read(chunks, codes, rest) {
    let at = 0;
    const memory = new Uint8Array(this.bytes.buffer, 0, codes);
    for (const chunk of chunks) {
      const bytes = decode64(chunk), own = bytes.subarray(0, Math.max(0, codes - at)), others = bytes.subarray(own.length);
      if (at + bytes.length > codes + rest.length) throw new Error("The page holds more than its weights.");
      if (own.length) memory.set(own, at);
      if (others.length) rest.set(others, at + own.length - codes);
      at += bytes.length;
    }
    if (at !== codes + rest.length) {
      throw new Error(`The page is incomplete: ${at} bytes of weights instead of ${codes + rest.length}.`);
    }
  }

  /** @param {string} name @returns {Matrix} */
  matrix(name) {
    const found = this.matrices.get(name);
    if (!found) throw new Error(`The page has no weights called ${name}.`);
    return found;
  }
}
