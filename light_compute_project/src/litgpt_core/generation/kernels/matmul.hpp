// Activations (N, K) in fp32 times a weight matrix (O, K) as PyTorch stores it, in fp32 or bf16; sums in fp32.
//
// bf16 is the upper half of fp32. A 32-bit word holds two adjacent values: shifted left by 16 it is the even one as fp32,
// with the lower half cleared the odd one, which takes two cheap instructions per pair of vectors. For this, the
// activations are packed once per product: even elements before odd ones in every block of 2 * LANES. fp32 weights use the
// same code with another `decode` and need no packing.
#pragma once

#include "vector.hpp"

constexpr int BLOCK = 2 * LANES;

struct bf16 {
    uint16_t bits;
};

static inline float widen(float value) { return value; }
static inline float widen(bf16 value) {
    const uint32_t bits = uint32_t(value.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}

static inline void decode(const float* from, vec& first, vec& second) {
    first = load<vec>(from);
    second = load<vec>(from + LANES);
}
static inline void decode(const bf16* from, vec& evens, vec& odds) {
    const uvec words = load<uvec>(from);
    evens = (vec)(words << 16);
    odds = (vec)(words & 0xffff0000u);
}

// Packs one activation vector of `size` numbers into the order of `decode`; the rest after the last complete block keeps
// its order.
static inline void pack(const float* from, float* to, size_t size, const float*) { std::memcpy(to, from, size * 4); }
static inline void pack(const float* from, float* to, size_t size, const bf16*) {
    size_t i = 0;
    for (; i + BLOCK <= size; i += BLOCK) {
        const vec a = load<vec>(from + i), b = load<vec>(from + i + LANES);
        store(to + i, evens(a, b));
        store(to + i + LANES, odds(a, b));
    }
    for (; i < size; i++) to[i] = from[i];
}

// Rounds to nearest, ties to even; NaN stays NaN.
static inline bf16 narrow(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (value != value) return {uint16_t(bits >> 16 | 0x40)};
    return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

// R rows of weights, `apart` numbers from each other, times M activation vectors -> sums[r * M + m]
template <int R, int M, class W>
static inline void tile(const W* weights, size_t apart, size_t size, const float* packed, float* sums) {
    static_assert(R * M <= LANES, "the tree adds up LANES accumulators");
    vec total[LANES] = {};
    size_t i = 0;
    for (; i + BLOCK <= size; i += BLOCK) {
        vec first[M], second[M];
#pragma GCC unroll 16
        for (int m = 0; m < M; m++) {
            first[m] = in_register(load<vec>(packed + m * size + i));
            second[m] = in_register(load<vec>(packed + m * size + i + LANES));
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            vec a, b;
            decode(weights + r * apart + i, a, b);
#pragma GCC unroll 16
            for (int m = 0; m < M; m++) total[r * M + m] += a * first[m];
#pragma GCC unroll 16
            for (int m = 0; m < M; m++) total[r * M + m] += b * second[m];
        }
    }
    float result[LANES];
    store(result, sums_of(total));
    for (int r = 0; r < R; r++)
        for (int m = 0; m < M; m++) {
            float value = result[r * M + m];
            for (size_t k = i; k < size; k++)
                value = __builtin_fmaf(widen(weights[r * apart + k]), packed[m * size + k], value);
            sums[r * M + m] = value;
        }
}

struct Output {
    float* to;          // (N, width)
    size_t width;
    const float* bias;  // (O,) or null
    bool add;           // add to the existing values
};

// Output columns o, o + apart, ... (R of them) of lines [line, line + M).
template <int R, int M, class W>
static inline void patch(const W* weights, size_t o, size_t apart, size_t size, const float* packed, size_t line,
                         const Output& out) {
    float sums[R * M];
    tile<R, M>(weights + o * size, apart * size, size, packed + line * size, sums);
    for (int r = 0; r < R; r++)
        for (int m = 0; m < M; m++) {
            const size_t column = o + r * apart;
            const float value = sums[r * M + m] + (out.bias ? out.bias[column] : 0.0f);
            float& place = out.to[(line + m) * out.width + column];
            place = out.add ? place + value : value;
        }
}

// Columns [o, stop), and with R > 1 those `apart` from them, for all n lines. Single columns, of which there are three at
// most, take one line at a time: compilers need not add a single accumulator up alike in several functions.
template <int R, class W>
static inline void band(const W* weights, size_t o, size_t stop, size_t apart, size_t size, const float* packed,
                        size_t n, const Output& out) {
    size_t line = 0;
    if constexpr (R > 1 && LANES >= 4 * R)
        for (; line + 4 <= n; line += 4)
            for (size_t i = o; i < stop; i++) patch<R, 4>(weights, i, apart, size, packed, line, out);
    for (; R > 1 && line + 2 <= n; line += 2)
        for (size_t i = o; i < stop; i++) patch<R, 2>(weights, i, apart, size, packed, line, out);
    for (; line < n; line++)
        for (size_t i = o; i < stop; i++) patch<R, 1>(weights, i, apart, size, packed, line, out);
}

static inline vec half_block(const float* from, int half) { return load<vec>(from + half * LANES); }
static inline vec half_block(const bf16* from, int half) {
    const uvec words = load<uvec>(from);
    return (vec)(half ? words & 0xffff0000u : words << 16);
}

// Output columns [o, o + LANES) of M lines, for processors with 16 registers: two rows of weights at a time, so that each
// activation is loaded for two products. The order of additions is that of `tile`.
template <int M, class W>
static inline void strip(const W* weights, size_t o, size_t size, const float* packed, size_t line, const Output& out) {
    const float* lines = packed + line * size;
    const size_t whole = size - size % BLOCK;
    vec sums[M][LANES];
    for (int r = 0; r < LANES; r += 2) {
        const W *one = weights + (o + r) * size, *two = one + size;
        vec total[M][2] = {};
        for (size_t i = 0; i < whole; i += BLOCK)
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                const vec a = half_block(one + i, half), b = half_block(two + i, half);
#pragma GCC unroll 8
                for (int m = 0; m < M; m++) {
                    const vec x = in_register(load<vec>(lines + m * size + i + half * LANES));
                    total[m][0] += a * x;
                    total[m][1] += b * x;
                }
            }
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) sums[m][r] = total[m][0], sums[m][r + 1] = total[m][1];
    }
    for (int m = 0; m < M; m++) {
        vec value = sums_of(sums[m]);
        for (size_t k = whole; k < size; k++)
            for (int r = 0; r < LANES; r++)
                value[r] = __builtin_fmaf(widen(weights[(o + r) * size + k]), lines[m * size + k], value[r]);
        float* to = out.to + (line + m) * out.width + o;
        if (out.bias) value += load<vec>(out.bias + o);
        if (out.add) value += load<vec>(to);
        store(to, value);
    }
}

// `lines` lines, M at most.
template <int M, class W>
static inline void strip_lines(const W* weights, size_t o, size_t size, const float* packed, size_t line, size_t lines,
                               const Output& out) {
    if constexpr (M > 0) {
        if (lines != M)
            strip_lines<M - 1>(weights, o, size, packed, line, lines, out);
        else
            strip<M>(weights, o, size, packed, line, out);
    }
}

// Columns [begin, end) of packed (n, size) times weights^T: one thread's share. It is read as four sequential streams,
// which hardware prefetchers follow at up to twice the rate of adjacent rows (docs/log.md). With many rows of activations,
// a few rows of weights stay in the second-level cache while groups of activation rows, which fit into the first level,
// are processed.
template <class W>
static void multiply(const W* weights, size_t size, size_t begin, size_t end, const float* packed, size_t n,
                     const Output& out) {
    constexpr size_t STREAMS = 4, ROWS = 8;
    if (LANES == 8 && n > 2) {
        constexpr int MOST = 6;
        const size_t parts = (n + MOST - 1) / MOST;
        for (; begin + LANES <= end; begin += LANES)
            for (size_t part = 0; part < parts; part++) {
                const size_t line = n * part / parts, lines = n * (part + 1) / parts - line;
                strip_lines<MOST>(weights, begin, size, packed, line, lines, out);
            }
    }
    const size_t apart = (end - begin) / STREAMS, middle = begin + apart;
    for (size_t o = begin; o < middle; o += ROWS)
        band<STREAMS>(weights, o, o + ROWS < middle ? o + ROWS : middle, apart, size, packed, n, out);
    band<1>(weights, begin + STREAMS * apart, end, 0, size, packed, n, out);
}
