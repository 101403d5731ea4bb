// Float32 matrix products from packed operands, 6 rows by two vectors of columns at a time.
//
//     rows (m, depth), read through a source    6 rows side by side, in a block that fits the second-level cache
//     columns (depth, n)                        two vectors of columns side by side: a strip that fits the first level
//
// Sources (`at` gives LANES numbers of a row) let a norm or an activation be computed while its result is packed, so that it
// is never written out. What an element sums up, and in which order, depends on the sizes alone: any number of threads gives
// the same bits.
#pragma once

#include "threads.hpp"
#include "vector.hpp"

constexpr size_t MR = 6, NR = 2 * LANES;
constexpr size_t DEPTH = 384;         // most products that are summed up before the sums go to memory
constexpr size_t BLOCK_STRIPS = 21;   // groups of MR rows in a block: 126 rows x 384 are 190 kB
constexpr size_t ROOM = (BLOCK_STRIPS * MR + 1) * DEPTH + LANES;  // floats of a packed block

struct Team {
    int thread, threads;
    Barrier& barrier;
    void wait() const { barrier.wait(threads); }
    Share share_of(size_t total, size_t grain = 1) const { return share(total, thread, threads, grain); }
};

static inline size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

// `depth` in equal chunks of DEPTH at most, multiples of LANES.
static inline size_t chunk_of(size_t depth) {
    const size_t chunks = (depth + DEPTH - 1) / DEPTH;
    return chunks ? round_up((depth + chunks - 1) / chunks, LANES) : LANES;
}

// Rows in blocks of about equal size, whose number and boundaries depend on the number of rows alone.
struct Blocks {
    size_t rows, strips, count;

    explicit Blocks(size_t rows) : rows(rows), strips((rows + MR - 1) / MR) {
        const size_t fewest = (strips + BLOCK_STRIPS - 1) / BLOCK_STRIPS;
        const size_t even = round_up(fewest, 8);
        count = even < strips ? even : strips;
    }
    size_t begin(size_t block) const {
        const size_t row = strips * block / count * MR;
        return row < rows ? row : rows;
    }
};

// LANES x LANES numbers, in place: alternating the lanes of one half of the vectors with the other half's, log2(LANES) times.
static inline void transpose(vec (&rows)[LANES]) {
#pragma GCC unroll 4
    for (int width = 1; width < LANES; width *= 2) {
        vec next[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++) {
            next[2 * i] = alternate_low(rows[i], rows[i + LANES / 2]);
            next[2 * i + 1] = alternate_high(rows[i], rows[i + LANES / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) rows[i] = next[i];
    }
}

// sums[i] += sum over k of a[i * a_row + k * a_step] * (NR numbers at b + k * b_step)
static inline void tile(const float* a, size_t a_row, size_t a_step, const float* b, size_t b_step, size_t depth,
                        vec (&sums)[MR][2]) {
    vec total[MR][2];
#pragma GCC unroll 6
    for (size_t i = 0; i < MR; i++) total[i][0] = sums[i][0], total[i][1] = sums[i][1];
#pragma GCC unroll 2
    for (size_t k = 0; k < depth; k++) {
        const vec first = in_register(load<vec>(b)), second = in_register(load<vec>(b + LANES));
#pragma GCC unroll 6
        for (size_t i = 0; i < MR; i++) {
            const vec factor = in_register(fill(a[i * a_row]));
            total[i][0] += factor * first;
            total[i][1] += factor * second;
        }
        a += a_step, b += b_step;
    }
#pragma GCC unroll 6
    for (size_t i = 0; i < MR; i++) sums[i][0] = total[i][0], sums[i][1] = total[i][1];
}

// Part `part` of `parts` of the next strip, `count` rows of NR numbers, is fetched into the second-level cache, which does not
// hold all `columns`.
static inline void fetch_part(const float* next, size_t count, size_t columns, size_t part, size_t parts) {
    constexpr size_t LINE = 16, HELD = 128 * 1024;
    if (count * columns <= HELD) return;
    const size_t lines = count * NR / LINE, end = lines * (part + 1) / parts;
    for (size_t i = lines * part / parts; i < end; i++) __builtin_prefetch(next + i * LINE, 0, 2);
}

// Numbers as they lie in memory.
struct Plain {
    const float* from;
    size_t width;
    void prepare(size_t, size_t) const {}
    vec at(size_t row, size_t column) const { return load<vec>(from + row * width + column); }
};

// A size of a matrix as the kernels see it, filled up with zeros, and as it is in memory.
struct Size {
    size_t all, there;
    Size(size_t size) : all(size), there(size) {}
    Size(size_t all, size_t there) : all(all), there(there) {}
};

// LANES numbers, those from `there` on zeros.
static inline vec load_some(const float* from, size_t at, size_t there) {
    if (at + LANES <= there) return load<vec>(from + at);
    float line[LANES] = {};
    if (at < there) std::memcpy(line, from + at, (there - at) * sizeof(float));
    return load<vec>(line);
}

// Weights for `block_product`: chunk after chunk, strip after strip. These are `columns` columns from `begin` on of `all`, of
// weights as PyTorch stores a linear layer, (columns, depth).
static void pack_transposed(const Team& team, const float* weights, Size depth, Size columns, float* packed, size_t begin,
                            size_t all) {
    const size_t chunk = chunk_of(depth.all);
    const Share mine = team.share_of(columns.all / NR);
    for (size_t strip = mine.begin; strip < mine.end; strip++)
        for (size_t k = 0; k < depth.all; k += chunk) {
            const size_t count = k + chunk < depth.all ? chunk : depth.all - k, column = strip * NR;
            float* to = packed + k * all + (begin + column) * count;
            for (size_t half = 0; half < NR; half += LANES)
                for (size_t i = 0; i < count; i += LANES) {
                    vec square[LANES] = {};
                    for (size_t r = 0; r < size_t(LANES) && column + half + r < columns.there; r++)
                        square[r] = load_some(weights + (column + half + r) * depth.there, k + i, depth.there);
                    transpose(square);
                    for (size_t r = 0; r < size_t(LANES); r++) store(to + (i + r) * NR + half, square[r]);
                }
        }
}

// The same of weights (depth, columns); with a `second` matrix its rows follow those of the first.
static void pack_straight(const Team& team, const float* first, const float* second, Size depth, Size columns,
                          float* packed) {
    const size_t total = depth.all * (second ? 2 : 1), chunk = chunk_of(total);
    const Share mine = team.share_of(columns.all / NR);
    for (size_t strip = mine.begin; strip < mine.end; strip++)
        for (size_t k = 0; k < total; k++) {
            const size_t begin = k / chunk * chunk, count = begin + chunk < total ? chunk : total - begin;
            const size_t line = k < depth.all ? k : k - depth.all;
            const float* row = (k < depth.all ? first : second) + line * columns.there;
            const size_t there = line < depth.there ? columns.there : 0;
            float* to = packed + begin * columns.all + strip * NR * count + (k - begin) * NR;
            store(to, load_some(row, strip * NR, there));
            store(to + LANES, load_some(row, strip * NR + LANES, there));
        }
}

// Rows [begin, end) of a source, numbers [k, k + count) of each -> MR rows side by side. Writes up to LANES floats more.
template <class Source>
static void pack_rows(const Source& source, size_t begin, size_t end, size_t k, size_t count, float* to) {
    for (size_t row = begin; row < end; row += MR, to += MR * count)
        for (size_t i = 0; i < count; i += LANES) {
            vec square[LANES] = {};
            for (size_t r = 0; r < MR && row + r < end; r++) square[r] = source.at(row + r, k + i);
            transpose(square);
            for (size_t r = 0; r < size_t(LANES); r++) store(to + (i + r) * MR, square[r]);
        }
}

// Rows [begin, end) of a source times packed columns. `finish(row, column, first, second)` gets NR sums of a row. With more
// than one chunk the sums so far are kept in `partial`, which has `columns` numbers a row from `begin` on.
template <class Source, class Finish>
static void block_product(const Source& source, size_t begin, size_t end, size_t depth, const float* packed,
                          size_t columns, float* partial, float* room, const Finish& finish) {
    const size_t chunk = chunk_of(depth);
    source.prepare(begin, end);
    for (size_t k = 0; k < depth; k += chunk) {
        const size_t count = k + chunk < depth ? chunk : depth - k;
        const bool last = k + count == depth;
        pack_rows(source, begin, end, k, count, room);
        const float* strip = packed + k * columns;
        const size_t groups = (end - begin + MR - 1) / MR;
        for (size_t column = 0; column < columns; column += NR, strip += NR * count)
            for (size_t row = begin; row < end; row += MR) {
                vec sums[MR][2] = {};
                if (column + NR < columns) fetch_part(strip + NR * count, count, columns, (row - begin) / MR, groups);
                tile(room + (row - begin) * count, 1, MR, strip, NR, count, sums);
                const size_t rows = end - row < MR ? end - row : MR;
                for (size_t r = 0; r < rows; r++) {
                    float* place = partial + (row - begin + r) * columns + column;
                    if (k) sums[r][0] += load<vec>(place), sums[r][1] += load<vec>(place + LANES);
                    if (last)
                        finish(row + r, column, sums[r][0], sums[r][1]);
                    else
                        store(place, sums[r][0]), store(place + LANES, sums[r][1]);
                }
            }
    }
}

// MR columns of a (tokens, width) matrix, of `count` tokens -> side by side; their sums are added to `bias` if it is not null.
static inline void pack_gradient(const float* from, size_t width, size_t column, size_t columns, size_t count, float* to,
                                 float* bias) {
    vec sums[4] = {};  // four, which is more exact than one long sum
    if (column + LANES <= columns) {
        for (size_t i = 0; i < count; i++) {
            const vec value = load<vec>(from + i * width + column);
            store(to + i * MR, value);
            sums[i % 4] += value;
        }
    } else {
        const size_t there = columns - column < MR ? columns - column : MR;
        for (size_t i = 0; i < count; i++) {
            float line[LANES] = {};
            std::memcpy(line, from + i * width + column, there * sizeof(float));
            store(to + i * MR, load<vec>(line));
            sums[i % 4] += load<vec>(line);
        }
    }
    if (!bias) return;
    const vec sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (size_t r = 0; r < MR && column + r < columns; r++) bias[r] += sum[r];
}

// Where the gradient of a matrix goes, or of two that were multiplied as one: the second's rows follow those of the first.
struct MatrixGradient {
    float *first, *second;
    float *first_bias, *second_bias;  // null: there is none
    Size rows, columns;               // of one
    // Null for rows that are filled up.
    float* row(size_t index) const {
        const bool is_first = index < rows.all;
        const size_t line = is_first ? index : index - rows.all;
        return line < rows.there ? (is_first ? first : second) + line * columns.there : nullptr;
    }
    float* bias(size_t index) const {
        const bool is_first = index < rows.all;
        float* of = is_first ? first_bias : second_bias;
        return of ? of + (is_first ? index : index - rows.all) : nullptr;
    }
    void put(size_t index, size_t column, vec one, vec two, bool add) const {
        float* to = row(index);
        if (!to) return;
        to += column;
        if (column + NR <= columns.there) {
            if (add) one += load<vec>(to), two += load<vec>(to + LANES);
            store(to, one), store(to + LANES, two);
            return;
        }
        float line[NR];
        store(line, one), store(line + LANES, two);
        for (size_t i = 0; column + i < columns.there; i++) to[i] = add ? to[i] + line[i] : line[i];
    }
};

// outputs^T (m, tokens) times inputs (tokens, n): the gradient of weights (m, n), n being the columns of `out`, and the sums of `outputs` over the tokens.
// `shared` holds 2 * DEPTH * n floats; `room` is the thread's. Ends without a barrier.
template <class Source>
static void gradient_product(const Team& team, const float* outputs, size_t m, const Source& inputs, size_t tokens,
                             const MatrixGradient& out, float* shared, float* room) {
    const size_t n = out.columns.all;
    const size_t chunk = chunk_of(tokens), strips = (m + MR - 1) / MR;
    const Share mine = team.share_of(strips);
    for (size_t t = 0, turn = 0; t < tokens; t += chunk, turn ^= 1) {
        const size_t count = t + chunk < tokens ? chunk : tokens - t;
        float* packed = shared + turn * DEPTH * n;
        const Share lines = team.share_of(count);
        for (size_t i = lines.begin; i < lines.end; i++)
            for (size_t column = 0; column < n; column += NR) {
                store(packed + column * count + i * NR, inputs.at(t + i, column));
                store(packed + column * count + i * NR + LANES, inputs.at(t + i, column + LANES));
            }
        team.wait();
        for (size_t group = mine.begin; group < mine.end; group += BLOCK_STRIPS) {
            const size_t stop = group + BLOCK_STRIPS < mine.end ? group + BLOCK_STRIPS : mine.end;
            for (size_t strip = group; strip < stop; strip++) {
                float sums[MR] = {};
                const size_t row = strip * MR;
                pack_gradient(outputs + t * m, m, row, m, count, room + (strip - group) * MR * count, sums);
                for (size_t r = 0; r < MR && row + r < m; r++)
                    if (float* bias = out.bias(row + r)) *bias = t ? *bias + sums[r] : sums[r];
            }
            for (size_t column = 0; column < n; column += NR)
                for (size_t strip = group; strip < stop; strip++) {
                    const size_t row = strip * MR, rows = m - row < MR ? m - row : MR;
                    for (size_t r = 0; r < rows; r++)
                        if (const float* to = out.row(row + r)) __builtin_prefetch(to + column, 1);
                    vec total[MR][2] = {};
                    if (column + NR < n) fetch_part(packed + (column + NR) * count, count, n, strip - group, stop - group);
                    tile(room + (strip - group) * MR * count, 1, MR, packed + column * count, NR, count, total);
                    for (size_t r = 0; r < rows; r++) out.put(row + r, column, total[r][0], total[r][1], t > 0);
                }
        }
    }
}
