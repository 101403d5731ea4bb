// Many activation vectors (N, K) times a weight matrix that was packed beforehand; sums in fp32.
//
//     weights (O, K)  ->  packed: groups of 2 * LANES outputs; for every k, the weights of all outputs of the group
//
// The lanes of a vector are outputs, an activation is broadcast to them, and nothing is summed across lanes: with several
// rows of activations almost every instruction is a multiplication. The sum of an output runs over k in order, for any
// number of rows, so the result of a row does not depend on the other rows. `Product` defines the memory layout of a row
// of packed weights and its multiplication.
#pragma once

#include "matmul.hpp"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

constexpr int PACK_WIDTH = 2 * LANES;
constexpr int LINES = LANES == 16 ? 12 : 6;  // as many as there are registers for: two accumulators each
constexpr int STREAMS = 4;

// fp32 activations. A bf16 row holds, in each 32-bit word, an output of the first half below one of the second, which
// `decode` parts.
template <class W> struct Product {
    using Number = float;
    static constexpr int DEPTH = 1;  // numbers k that one multiplication takes

    static inline void row(const W* from, vec& first, vec& second) { decode(from, first, second); }
    static inline vec add(vec total, vec weights, Number number) { return total + weights * number; }
    static inline void pack(const float* from, Number* to, size_t size) { std::memcpy(to, from, size * sizeof(float)); }
};

// Where the processor multiplies pairs of bf16: activations are rounded to it, as PyTorch's are, and a row is two numbers
// k deep, each 32-bit word an output's pair. Up to twice the rate of fp32.
#if defined(__AVX512BF16__)
template <> struct Product<bf16> {
    using Number = uint32_t;
    static constexpr int DEPTH = 2;

    static inline void row(const bf16* from, vec& first, vec& second) {
        first = load<vec>(from);
        second = load<vec>(from + PACK_WIDTH);
    }
    static inline vec add(vec total, vec weights, Number number) {
        return (vec)_mm512_dpbf16_ps((__m512)total, (__m512bh)weights, (__m512bh)_mm512_set1_epi32(int(number)));
    }
    static inline void pack(const float* from, Number* to, size_t size) {
        size_t i = 0;
        for (; i + PACK_WIDTH <= size; i += PACK_WIDTH) {
            const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + i + LANES), _mm512_loadu_ps(from + i));
            std::memcpy(to + i / 2, &both, sizeof both);
        }
        for (; i < size; i += 2)
            to[i / 2] = narrow(from[i]).bits | (i + 1 < size ? uint32_t(narrow(from[i + 1]).bits) << 16 : 0u);
    }
};
#endif

template <class W> constexpr size_t steps(size_t size) { return (size + Product<W>::DEPTH - 1) / Product<W>::DEPTH; }

// Stores the sums of one row for N vectors of outputs, of which `count` exist.
template <int N> static inline void keep(const vec* sums, const Output& out, size_t line, size_t begin, size_t count) {
    float* to = out.to + line * out.width + begin;
    if (count == N * LANES) {
#pragma GCC unroll 2
        for (int half = 0; half < N; half++) {
            vec value = sums[half];
            if (out.bias) value += load<vec>(out.bias + begin + half * LANES);
            if (out.add) value += load<vec>(to + half * LANES);
            store(to + half * LANES, value);
        }
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const float value = sums[i / LANES][i % LANES] + (out.bias ? out.bias[begin + i] : 0.0f);
        to[i] = out.add ? to[i] + value : value;
    }
}

// Memory that will be read soon, in lines of the caches.
struct Soon {
    const char* at;
    size_t lines;
};
constexpr int CACHE_LINE = 64;

// M rows times P groups, the first at output `column`, each `apart` outputs after the last; outputs below `end` exist.
// Meanwhile `soon` is fetched, evenly: in a burst it would have to be waited for.
template <int P, int M, class W>
static inline void packed_tile(const W* weights, size_t size, const float* packed, size_t column, size_t apart, size_t end,
                              const Output& out, size_t line, Soon soon) {
    using Kind = Product<W>;
    const size_t depth = steps<W>(size), width = depth * Kind::DEPTH;
    const W* from = weights + column * width;
    const auto* lines = reinterpret_cast<const typename Kind::Number*>(packed) + line * depth;
    vec total[P][M][2] = {};
    for (size_t k = 0; k < depth; k++) {
        if (P == 1 && k < soon.lines) {
            constexpr int ROW = PACK_WIDTH * Kind::DEPTH * int(sizeof(W)) / CACHE_LINE;
            if (soon.lines > depth)  // a whole group: one row of it per row
                for (int i = 0; i < ROW; i++) __builtin_prefetch(soon.at + (k * ROW + i) * CACHE_LINE, 0, 2);
            else
                __builtin_prefetch(soon.at + k * CACHE_LINE, 0, 2);
        }
        typename Kind::Number number[M];
#pragma GCC unroll 16
        for (int m = 0; m < M; m++) number[m] = lines[m * depth + k];
#pragma GCC unroll 16
        for (int p = 0; p < P; p++) {
            vec first, second;
            Kind::row(from + p * apart * width + k * PACK_WIDTH * Kind::DEPTH, first, second);
#pragma GCC unroll 16
            for (int m = 0; m < M; m++) {
                total[p][m][0] = Kind::add(total[p][m][0], first, number[m]);
                total[p][m][1] = Kind::add(total[p][m][1], second, number[m]);
            }
        }
    }
    for (int p = 0; p < P; p++) {
        const size_t begin = column + p * apart, count = end - begin < PACK_WIDTH ? end - begin : PACK_WIDTH;
        for (int m = 0; m < M; m++) keep<2>(total[p][m], out, line + m, begin, count);
    }
}

// `lines` rows of activations, M at most, times one group.
template <int M, class W>
static inline void packed_lines(const W* weights, size_t size, const float* packed, size_t column, size_t end,
                               const Output& out, size_t line, size_t lines, Soon soon) {
    if constexpr (M > 0) {
        if (lines != M)
            packed_lines<M - 1>(weights, size, packed, column, end, out, line, lines, soon);
        else
            packed_tile<1, M>(weights, size, packed, column, 0, end, out, line, soon);
    }
}

// Few rows: P groups at once, far apart, so that each is a separate stream for the prefetcher and there are enough
// independent chains of additions to hide their latency. Returns the column after the last.
template <int P, int M, class W>
static inline size_t packed_streams(const W* weights, size_t size, size_t begin, size_t end, const float* packed,
                                   const Output& out) {
    const size_t apart = (end - begin) / (P * PACK_WIDTH) * PACK_WIDTH;
    for (size_t column = begin; column < begin + apart; column += PACK_WIDTH)
        packed_tile<P, M>(weights, size, packed, column, apart, end, out, 0, {});
    return begin + P * apart;
}

// Outputs [begin, end), multiples of PACK_WIDTH except for the last end, of n packed rows. With many rows, a group stays in
// the nearest caches while all rows are processed in parts of about equal size; each part prefetches its share of the next
// group.
template <class W>
static void multiply_packed(const W* weights, size_t size, size_t begin, size_t end, const float* packed, size_t n,
                            const Output& out) {
    if (n == 0) return;  // a chunk of a prompt that needs no logits
    if (n == 1) begin = packed_streams<STREAMS, 1>(weights, size, begin, end, packed, out);
    constexpr bool FEW = LANES == 8;  // 16 registers hold the sums of fewer groups
    if (n == 2) begin = packed_streams<FEW ? 2 : STREAMS, 2>(weights, size, begin, end, packed, out);
    if (n == 3) begin = packed_streams<FEW && sizeof(W) == 2 ? 1 : 2, 3>(weights, size, begin, end, packed, out);
    const size_t parts = (n + LINES - 1) / LINES, width = steps<W>(size) * Product<W>::DEPTH;
    const size_t share = (width * PACK_WIDTH * sizeof(W) / CACHE_LINE + parts - 1) / parts;
    for (size_t column = begin; column < end; column += PACK_WIDTH) {
        const char* next = reinterpret_cast<const char*>(weights + (column + PACK_WIDTH) * width);
        for (size_t part = 0; part < parts; part++) {
            const size_t line = n * part / parts, lines = n * (part + 1) / parts - line;
            const Soon soon{next + part * share * CACHE_LINE, n > 3 ? share : 0};
            packed_lines<LINES>(weights, size, packed, column, end, out, line, lines, soon);
        }
    }
}
