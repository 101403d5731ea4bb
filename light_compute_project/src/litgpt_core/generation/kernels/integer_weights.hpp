// Activations (N, K), rounded to 8 bits per group of 32, times a matrix of 4-bit or 8-bit integers in strips of 16 outputs.
//
//     sum over groups g, in order, of  (exact integer sum of codes) * (scale of the weights * scale of the activations)
//
// The order of additions of an output does not depend on the number of rows, so neither does the result. The slow
// implementation that tests compare with is QuantLinear with int8_activations (model/quantized.py).
#pragma once

#include "dot.hpp"
#include "packed_weights.hpp"

// Rows at a time: as many as registers hold.
template <Bits BITS> constexpr int INTEGER_LINES = LANES == 16 ? 8 : BITS == FOUR ? 6 : 4;

// Groups of a line of `size` numbers; the last one may be incomplete, and is filled up with zeros.
static inline size_t groups_of(size_t size) { return (size + GROUP - 1) / GROUP; }

// fp32 -> codes -127..127, nearest, ties to even; scale = largest size / 127. A NaN becomes a NaN scale.
static void pack_groups(const float* from, Group* to, size_t size) {
    for (size_t g = 0; g < groups_of(size); g++) {
        const float* numbers = from + g * GROUP;
        float filled[GROUP] = {};
        if (size - g * GROUP < GROUP) {
            std::memcpy(filled, numbers, (size - g * GROUP) * sizeof(float));
            numbers = filled;
        }
        ivec largest{};  // bits of the sizes, which are in the order of the numbers; those of a NaN are the largest
        for (size_t i = 0; i < GROUP; i += LANES) {
            const ivec size = load<ivec>(numbers + i) & 0x7fffffff;
            largest = size > largest ? size : largest;
        }
        int32_t bits = 0;
        for (int i = 0; i < LANES; i++) bits = largest[i] > bits ? largest[i] : bits;
        float top;
        std::memcpy(&top, &bits, sizeof top);
        to[g].scale = top / 127.0f;
        const float inverse = top == 0 ? 0.0f : 127.0f / top;
        ivec sum{};
        for (size_t i = 0; i < GROUP; i += LANES) {
            typedef int8_t bytes __attribute__((vector_size(LANES)));
            const vec shifted = load<vec>(numbers + i) * inverse + 12582912.0f;  // 1.5 * 2^23: rounds
            const ivec whole = (ivec)shifted - 0x4B400000;
            const bytes codes = __builtin_convertvector(whole, bytes);
            std::memcpy(to[g].codes + i, &codes, sizeof codes);
            sum += whole;
        }
        int32_t all = 0;
        for (int i = 0; i < LANES; i++) all += sum[i];
        to[g].offset = int16_t(-8 * all), to[g].zero = 0;
    }
}

// P strips, `apart` outputs from each other, of each H vectors of outputs from the `half`th on, times M rows of `groups`
// groups. The processor's prefetcher follows the strips by itself; fetching ahead with instructions takes the few places
// for missing lines that a core has, and was slower.
template <Bits BITS, int P, int M, int H>
static inline void integer_tile(const Linear& linear, size_t groups, const Group* rows, size_t column, size_t apart,
                                size_t end, const Output& out, size_t line, size_t half) {
    using Product = Dot<BITS>;
    const uint8_t* codes[P];
    const uint16_t* scales[P];
    for (int p = 0; p < P; p++) {
        const size_t first = (column + p * apart) / STRIP * groups;
        codes[p] = static_cast<const uint8_t*>(linear.weight) + first * CODE_BYTES<BITS> + half * 4 * LANES;
        scales[p] = linear.scales + first * STRIP + half * LANES;
    }
    const Group* x = rows + line * groups;
    vec total[P][M][H] = {};
    for (size_t g = 0; g < groups; g++, x++) {
        typename Product::Sums sums[P][M][H];
#pragma GCC unroll 16
        for (int p = 0; p < P; p++)
#pragma GCC unroll 16
            for (int m = 0; m < M; m++)
#pragma GCC unroll 2
                for (int h = 0; h < H; h++) sums[p][m][h] = Product::begin(x[m * groups]);
#pragma GCC unroll 8
        for (int c = 0; c < BITS; c++)
#pragma GCC unroll 16
            for (int p = 0; p < P; p++)
#pragma GCC unroll 2
                for (int h = 0; h < H; h++) {
                    const auto weights = Product::weights(codes[p] + g * CODE_BYTES<BITS> + (c * STRIP + h * LANES) * 4);
#pragma GCC unroll 16
                    for (int m = 0; m < M; m++)
                        Product::add(sums[p][m][h], weights, x[m * groups].codes + (BITS == FOUR ? 8 : 4) * c);
                }
#pragma GCC unroll 16
        for (int p = 0; p < P; p++)
#pragma GCC unroll 2
            for (int h = 0; h < H; h++) {
                const vec scale = halves_to_floats(scales[p] + g * STRIP + h * LANES);
#pragma GCC unroll 16
                for (int m = 0; m < M; m++)
                    total[p][m][h] += __builtin_convertvector(Product::finish(sums[p][m][h], x[m * groups]), vec) *
                                      (scale * x[m * groups].scale);
            }
    }
    for (int p = 0; p < P; p++) {
        const size_t begin = column + p * apart + half * LANES;
        if (begin < end)
            for (int m = 0; m < M; m++)
                keep<H>(total[p][m], out, line + m, begin, end - begin < H * LANES ? end - begin : H * LANES);
    }
}

// `lines` rows, M at most, times one strip.
template <Bits BITS, int M>
static inline void integer_lines(const Linear& linear, size_t groups, const Group* rows, size_t column, size_t end,
                                 const Output& out, size_t line, size_t lines) {
    if constexpr (M > 0) {
        if (lines != M)
            integer_lines<BITS, M - 1>(linear, groups, rows, column, end, out, line, lines);
        else
            for (int half = 0; half < HALVES; half++)
                integer_tile<BITS, 1, M, 1>(linear, groups, rows, column, 0, end, out, line, half);
    }
}

// The strips of [column, end), at most P: all at once.
template <Bits BITS, int P, int M>
static inline void integer_rest(const Linear& linear, size_t groups, const Group* rows, size_t column, size_t end,
                                const Output& out) {
    if constexpr (P > 0) {
        if (column + (P - 1) * STRIP < end)
            integer_tile<BITS, P, M, HALVES>(linear, groups, rows, column, STRIP, end, out, 0, 0);
        else
            integer_rest<BITS, P - 1, M>(linear, groups, rows, column, end, out);
    }
}

// One row, or two: four strips at once, far apart, so that each is a separate stream for the prefetcher; then the rest.
template <Bits BITS, int M>
static void integer_streams(const Linear& linear, size_t groups, size_t begin, size_t end, const Group* rows,
                            const Output& out) {
    const size_t apart = (end - begin) / (STREAMS * STRIP) * STRIP, stop = begin + apart;
    for (; begin < stop; begin += STRIP)
        integer_tile<BITS, STREAMS, M, HALVES>(linear, groups, rows, begin, apart, end, out, 0, 0);
    integer_rest<BITS, STREAMS, M>(linear, groups, rows, begin + (STREAMS - 1) * apart, end, out);
}

// Outputs [begin, end), multiples of STRIP except for the last end, of n rows.
template <Bits BITS>
static void multiply_integers(const Linear& linear, size_t size, size_t begin, size_t end, const Group* rows, size_t n,
                              const Output& out) {
    const size_t groups = groups_of(size);
    if (n == 0) return;
    if (n == 1) return integer_streams<BITS, 1>(linear, groups, begin, end, rows, out);
    if (n == 2) return integer_streams<BITS, 2>(linear, groups, begin, end, rows, out);
    const size_t parts = (n + INTEGER_LINES<BITS> - 1) / INTEGER_LINES<BITS>;
    for (size_t column = begin; column < end; column += STRIP)
        for (size_t part = 0; part < parts; part++) {
            const size_t line = n * part / parts, lines = n * (part + 1) / parts - line;
            integer_lines<BITS, INTEGER_LINES<BITS>>(linear, groups, rows, column, end, out, line, lines);
        }
}

// Number `i` of row `row` of a packed matrix of `size` columns.
static inline float integer_at(const Linear& linear, size_t size, size_t row, size_t i) {
    const size_t place = row / STRIP * groups_of(size) + i / GROUP, k = i % GROUP, o = row % STRIP;
    const uint8_t* codes = static_cast<const uint8_t*>(linear.weight);
    const float scale = half_to_float(linear.scales[place * STRIP + o]);
    if (linear.bits == EIGHT)
        return float(int8_t(codes[place * CODE_BYTES<EIGHT> + k / 4 * 64 + o * 4 + k % 4])) * scale;
    const uint8_t byte = codes[place * CODE_BYTES<FOUR> + k / 8 * 64 + o * 4 + k % 4];
    return float((k % 8 < 4 ? byte & 15 : byte >> 4) - 8) * scale;
}
