// Many activation vectors (N, K) times a weight matrix that was rearranged for it beforehand; sums in fp32.
//
//     weights (O, K), rows            panels of 2 * LANES outputs: for every k, the weights of all its outputs side by side
//
// So the lanes of a vector are outputs, an activation is broadcast to them, and nothing is added up across lanes: with
// several lines at once almost every instruction is a multiplication. The sums of an output run over k in order whatever
// the number of lines, so a line's result does not depend on its neighbours. How a row of a panel lies in memory, and
// what it is multiplied by, a `Product` says.
#pragma once

#include "matmul.hpp"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

constexpr int PANEL = 2 * LANES;
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
        second = load<vec>(from + PANEL);
    }
    static inline vec add(vec total, vec weights, Number number) {
        return (vec)_mm512_dpbf16_ps((__m512)total, (__m512bh)weights, (__m512bh)_mm512_set1_epi32(int(number)));
    }
    static inline void pack(const float* from, Number* to, size_t size) {
        size_t i = 0;
        for (; i + PANEL <= size; i += PANEL) {
            const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + i + LANES), _mm512_loadu_ps(from + i));
            std::memcpy(to + i / 2, &both, sizeof both);
        }
        for (; i < size; i += 2)
            to[i / 2] = narrow(from[i]).bits | (i + 1 < size ? uint32_t(narrow(from[i + 1]).bits) << 16 : 0u);
    }
};
#endif

template <class W> constexpr size_t steps(size_t size) { return (size + Product<W>::DEPTH - 1) / Product<W>::DEPTH; }

// One line's sums of one panel, of which `wanted` exist, to where they belong.
static inline void keep(const vec* sums, const Output& out, size_t line, size_t begin, size_t wanted) {
    float* to = out.to + line * out.width + begin;
    if (wanted == PANEL) {
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            vec value = sums[half];
            if (out.bias) value += load<vec>(out.bias + begin + half * LANES);
            if (out.add) value += load<vec>(to + half * LANES);
            store(to + half * LANES, value);
        }
        return;
    }
    for (size_t i = 0; i < wanted; i++) {
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

// M lines times P panels, the first at output `column`, each `apart` outputs after the last; outputs below `end` exist.
// Meanwhile `soon` is fetched, evenly: in a burst it would have to be waited for.
template <int P, int M, class W>
static inline void panel_tile(const W* panels, size_t size, const float* packed, size_t column, size_t apart, size_t end,
                              const Output& out, size_t line, Soon soon) {
    using Kind = Product<W>;
    const size_t depth = steps<W>(size), width = depth * Kind::DEPTH;
    const W* from = panels + column * width;
    const auto* lines = reinterpret_cast<const typename Kind::Number*>(packed) + line * depth;
    vec total[P][M][2] = {};
    for (size_t k = 0; k < depth; k++) {
        if (P == 1 && k < soon.lines) {
            constexpr int ROW = PANEL * Kind::DEPTH * int(sizeof(W)) / CACHE_LINE;
            if (soon.lines > depth)  // all of a panel: a row for each row
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
            Kind::row(from + p * apart * width + k * PANEL * Kind::DEPTH, first, second);
#pragma GCC unroll 16
            for (int m = 0; m < M; m++) {
                total[p][m][0] = Kind::add(total[p][m][0], first, number[m]);
                total[p][m][1] = Kind::add(total[p][m][1], second, number[m]);
            }
        }
    }
    for (int p = 0; p < P; p++) {
        const size_t begin = column + p * apart, wanted = end - begin < PANEL ? end - begin : PANEL;
        for (int m = 0; m < M; m++) keep(total[p][m], out, line + m, begin, wanted);
    }
}

// `lines` lines, M at most, of one panel.
template <int M, class W>
static inline void panel_lines(const W* panels, size_t size, const float* packed, size_t column, size_t end,
                               const Output& out, size_t line, size_t lines, Soon soon) {
    if constexpr (M > 0) {
        if (lines != M)
            panel_lines<M - 1>(panels, size, packed, column, end, out, line, lines, soon);
        else
            panel_tile<1, M>(panels, size, packed, column, 0, end, out, line, soon);
    }
}

// Few lines: P panels at once, far apart, so that each is a stream of its own for the prefetcher and the chains of
// additions, each waiting for the last, are enough for the processor to have something to do in between. Returns the
// column that they end at.
template <int P, int M, class W>
static inline size_t panel_streams(const W* panels, size_t size, size_t begin, size_t end, const float* packed,
                                   const Output& out) {
    const size_t apart = (end - begin) / (P * PANEL) * PANEL;
    for (size_t column = begin; column < begin + apart; column += PANEL)
        panel_tile<P, M>(panels, size, packed, column, apart, end, out, 0, {});
    return begin + P * apart;
}

// Outputs [begin, end), multiples of PANEL but for the last end, of n packed lines. With many lines, a panel stays in the
// nearest caches while all of them pass by, in parts as equal as can be; each part fetches its share of the next panel.
template <class W>
static void multiply_panels(const W* panels, size_t size, size_t begin, size_t end, const float* packed, size_t n,
                            const Output& out) {
    if (n == 0) return;  // a part of a prompt, of whose logits nobody wants any
    if (n == 1) begin = panel_streams<STREAMS, 1>(panels, size, begin, end, packed, out);
    if (n == 2) begin = panel_streams<STREAMS, 2>(panels, size, begin, end, packed, out);
    if (n == 3) begin = panel_streams<2, 3>(panels, size, begin, end, packed, out);
    const size_t parts = (n + LINES - 1) / LINES, width = steps<W>(size) * Product<W>::DEPTH;
    const size_t share = (width * PANEL * sizeof(W) / CACHE_LINE + parts - 1) / parts;
    for (size_t column = begin; column < end; column += PANEL) {
        const char* next = reinterpret_cast<const char*>(panels + (column + PANEL) * width);
        for (size_t part = 0; part < parts; part++) {
            const size_t line = n * part / parts, lines = n * (part + 1) / parts - line;
            const Soon soon{next + part * share * CACHE_LINE, n > 3 ? share : 0};
            panel_lines<LINES>(panels, size, packed, column, end, out, line, lines, soon);
        }
    }
}
