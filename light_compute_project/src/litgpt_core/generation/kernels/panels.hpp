// Many activation vectors (N, K) times a weight matrix that was rearranged for it beforehand; sums in fp32.
//
//     weights (O, K), rows            panels of 2 * LANES outputs: for every k, the weights of all its outputs side by side
//
// So the lanes of a vector are outputs, an activation is broadcast to them, and nothing is added up across lanes: with
// several lines at once almost every instruction is a multiplication. A bf16 panel holds, in each 32-bit word, an output
// of its first half below one of its second, which one shift and one mask part. The sums of an output run over k in order
// whatever the number of lines, so a line's result does not depend on its neighbours.
#pragma once

#include "matmul.hpp"

constexpr int PANEL = 2 * LANES;
constexpr int LINES = LANES == 16 ? 12 : 6;  // as many as there are registers for: two accumulators each

static inline void panel_row(const float* from, vec& first, vec& second) {
    first = load<vec>(from);
    second = load<vec>(from + LANES);
}
static inline void panel_row(const bf16* from, vec& first, vec& second) { decode(from, first, second); }

// M lines times P panels, the first at output `column`, each `apart` outputs after the last; outputs below `end` exist.
template <int P, int M, class W>
static inline void panel_tile(const W* panels, size_t size, const float* lines, size_t column, size_t apart, size_t end,
                              const Output& out, size_t line) {
    const W* from = panels + column * size;
    vec total[P][M][2] = {};
    for (size_t k = 0; k < size; k++) {
        float number[M];
#pragma GCC unroll 16
        for (int m = 0; m < M; m++) number[m] = lines[m * size + k];
#pragma GCC unroll 16
        for (int p = 0; p < P; p++) {
            vec first, second;
            panel_row(from + p * apart * size + k * PANEL, first, second);
#pragma GCC unroll 16
            for (int m = 0; m < M; m++) {
                total[p][m][0] += first * number[m];
                total[p][m][1] += second * number[m];
            }
        }
    }
    for (int p = 0; p < P; p++)
        for (int m = 0; m < M; m++) {
            float sums[PANEL];
            store(sums, total[p][m][0]);
            store(sums + LANES, total[p][m][1]);
            const size_t begin = column + p * apart, wanted = end - begin < PANEL ? end - begin : PANEL;
            float* to = out.to + (line + m) * out.width + begin;
            for (size_t i = 0; i < wanted; i++) {
                const float value = sums[i] + (out.bias ? out.bias[begin + i] : 0.0f);
                to[i] = out.add ? to[i] + value : value;
            }
        }
}

constexpr int STREAMS = 4;

// STREAMS panels for M lines. One line's sums are two chains of additions, each waiting for the last: few lines take
// several panels at once, so that the processor has something to do in between.
template <int M, class W>
static inline void panel_lines(const W* panels, size_t size, const float* lines, size_t column, size_t apart, size_t end,
                               const Output& out, size_t line) {
    constexpr int P = M == 1 ? STREAMS : M <= 3 ? 2 : 1;
    for (int p = 0; p < STREAMS; p += P)
        panel_tile<P, M>(panels, size, lines, column + p * apart, apart, end, out, line);
}

// One panel, or STREAMS of them, for n < LINES lines.
template <int M, class W>
static inline void panel_rest(const W* panels, size_t size, const float* lines, size_t column, size_t apart, size_t end,
                              const Output& out, size_t line, size_t n) {
    if constexpr (M > 0) {
        if (n != M)
            panel_rest<M - 1>(panels, size, lines, column, apart, end, out, line, n);
        else if (apart)
            panel_lines<M>(panels, size, lines, column, apart, end, out, line);
        else
            panel_tile<1, M>(panels, size, lines, column, 0, end, out, line);
    }
}

// Outputs [begin, end), multiples of PANEL but for the last end, of lines (n, size). As in `multiply`, the panels are read
// as STREAMS streams, each from end to end; a few of them stay in the caches while all lines pass by.
template <class W>
static void multiply_panels(const W* panels, size_t size, size_t begin, size_t end, const float* lines, size_t n,
                            const Output& out) {
    const size_t apart = (end - begin) / (STREAMS * PANEL) * PANEL;
    const size_t whole = n / LINES * LINES;
    for (size_t column = begin; column < begin + apart; column += PANEL) {
        for (size_t line = 0; line < whole; line += LINES)
            panel_lines<LINES>(panels, size, lines + line * size, column, apart, end, out, line);
        panel_rest<LINES - 1>(panels, size, lines + whole * size, column, apart, end, out, whole, n - whole);
    }
    for (size_t column = begin + STREAMS * apart; column < end; column += PANEL) {
        for (size_t line = 0; line < whole; line += LINES)
            panel_tile<1, LINES>(panels, size, lines + line * size, column, 0, end, out, line);
        panel_rest<LINES - 1>(panels, size, lines + whole * size, column, 0, end, out, whole, n - whole);
    }
}
