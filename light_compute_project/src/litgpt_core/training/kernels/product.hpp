// Matrix products of float32 numbers from packed operands, N::ROWS rows by two vectors of columns at a time. `N` is `Single`, or
// `Pairs` or `Tiles` for products in bfloat16 (numbers.hpp): sizes are in numbers, packed operands in words.
//
//     rows (m, depth), read through a source    row after row (with tile registers squares of LANES words), in a block that
//                                               fits the second-level cache
//     columns (depth, n)                        two vectors of columns side by side: a strip of the size of the first level
//
// Sources (`at` gives LANES numbers of a row) let a norm or an activation be computed while its result is packed, so that it
// is never written out. What an element sums up, and in which order, depends on the sizes alone: any number of threads gives
// the same bits.
#pragma once

#include <algorithm>

#include "numbers.hpp"
#include "threads.hpp"
#include "vector.hpp"

constexpr size_t DEPTH = 384;                                     // most words that are multiplied before the sums go to memory
template <class N> constexpr size_t BLOCK_STRIPS = 128 / N::ROWS;  // groups of rows in a block: 128 rows x 384 are 190 kB
template <class N> constexpr size_t BLOCK_ROWS = BLOCK_STRIPS<N> * N::ROWS;
template <class N> constexpr size_t ROOM = (BLOCK_ROWS<N> + 1) * DEPTH + LANES;  // floats of a packed block

// A thread among the others of a parallel region; each has its own object.
class Team {
  public:
    const int thread, threads;

    Team(int thread, int threads, Barrier& barrier, WorkQueues& queues)
        : thread(thread), threads(threads), barrier_(barrier), queues_(queues) {}

    void wait() const { barrier_.wait(threads); }
    Share share_of(size_t total, size_t grain = 1) const { return share(total, thread, threads, grain); }
    // Calls `work(i)` for some of [0, count), the other threads for the rest. At most three times between barriers.
    template <class Work> void for_each(size_t count, const Work& work) const { queues_.for_each(count, thread, loop_++, work); }

  private:
    Barrier& barrier_;
    WorkQueues& queues_;
    mutable size_t loop_ = 0;
};

static inline size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

// Words of `count` numbers; a multiple of LANES for tile registers.
template <class N> static inline size_t words_of(size_t count) {
    const size_t words = (count + N::PER_WORD - 1) / N::PER_WORD;
    return IN_SQUARES<N> ? round_up(words, LANES) : words;
}

// `depth` in equal chunks of DEPTH words at most, multiples of LANES words.
template <class N> static inline size_t chunk_of(size_t depth) {
    constexpr size_t MOST = DEPTH * N::PER_WORD, LEAST = LANES * N::PER_WORD;
    const size_t chunks = (depth + MOST - 1) / MOST;
    return chunks ? round_up((depth + chunks - 1) / chunks, LEAST) : LEAST;
}

// Rows in blocks of about equal size, whose number and boundaries depend on the number of rows alone.
template <class N> struct Blocks {
    size_t rows, strips, count;

    explicit Blocks(size_t rows) : rows(rows), strips((rows + N::ROWS - 1) / N::ROWS) {
        const size_t fewest = (strips + BLOCK_STRIPS<N> - 1) / BLOCK_STRIPS<N>;
        const size_t even = round_up(fewest, 8);
        count = even < strips ? even : strips;
    }
    size_t begin(size_t block) const {
        const size_t row = strips * block / count * N::ROWS;
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

// sums[i] += sum over k < words of a[i * a_row + k * a_step] * (NR words at b + k * b_step)
template <class N>
static inline void tile(const float* a, size_t a_row, size_t a_step, const float* b, size_t b_step, size_t words,
                        vec (&sums)[MR][2]) {
    vec total[MR][2];
#pragma GCC unroll 12
    for (size_t i = 0; i < MR; i++) total[i][0] = sums[i][0], total[i][1] = sums[i][1];
#pragma GCC unroll 2
    for (size_t k = 0; k < words; k++) {
        const vec first = in_register(load<vec>(b)), second = in_register(load<vec>(b + LANES));
#pragma GCC unroll 12
        for (size_t i = 0; i < MR; i++) {
            const vec factor = in_register(N::spread(a + i * a_row));
            total[i][0] = N::add_product(total[i][0], factor, first);
            total[i][1] = N::add_product(total[i][1], factor, second);
        }
        a += a_step, b += b_step;
    }
#pragma GCC unroll 12
    for (size_t i = 0; i < MR; i++) sums[i][0] = total[i][0], sums[i][1] = total[i][1];
}

// sums = N::ROWS packed rows times `words` rows of NR words. With tile registers rows lie in squares; otherwise the words of a row are
// `step` apart, rows `apart`.
template <class N>
static inline void multiply(const float* rows, size_t apart, size_t step, const float* columns, size_t words,
                            vec (&sums)[N::ROWS][2]) {
    if constexpr (IN_SQUARES<N>) {
        N::multiply(rows, columns, words, sums);
    } else {
#pragma GCC unroll 12
        for (size_t i = 0; i < MR; i++) sums[i][0] = sums[i][1] = vec{};
        tile<N>(rows, apart, step, columns, NR, words, sums);
    }
}

// Part `part` of `parts` of the next strip, `count` rows of NR words, is fetched into the second-level cache, which does not
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

// LANES words of consecutive numbers of a row; `at(j)` gives LANES numbers from the j-th on.
template <class N, class At> static inline vec along(const At& at) {
    if constexpr (N::PER_WORD == 1)
        return at(0);
    else
        return N::along(at(0), at(LANES));
}

// Weights for `block_product`: chunk after chunk, strip after strip. These are `columns` columns from `begin` on of `all`, of
// weights as PyTorch stores a linear layer, (columns, depth).
template <class N>
static void pack_transposed(const Team& team, const float* weights, Size depth, Size columns, float* packed, size_t begin,
                            size_t all) {
    const size_t chunk = chunk_of<N>(depth.all);
    const Share mine = team.share_of(columns.all / NR);
    for (size_t strip = mine.begin; strip < mine.end; strip++)
        for (size_t k = 0; k < depth.all; k += chunk) {
            const size_t count = k + chunk < depth.all ? chunk : depth.all - k, column = strip * NR;
            float* to = packed + (k * all + (begin + column) * count) / N::PER_WORD;
            for (size_t half = 0; half < NR; half += LANES)
                for (size_t i = 0; i < count; i += LANES * N::PER_WORD) {
                    vec square[LANES] = {};
                    for (size_t r = 0; r < size_t(LANES) && column + half + r < columns.there; r++) {
                        const float* row = weights + (column + half + r) * depth.there;
                        square[r] = along<N>([&](size_t j) { return load_some(row, k + i + j, depth.there); });
                    }
                    transpose(square);
                    for (size_t r = 0; r < size_t(LANES); r++) store(to + (i / N::PER_WORD + r) * NR + half, square[r]);
                }
        }
}

// The same of weights (depth, columns); with a `second` matrix its rows follow those of the first.
template <class N>
static void pack_straight(const Team& team, const float* first, const float* second, Size depth, Size columns,
                          float* packed) {
    const size_t total = depth.all * (second ? 2 : 1), chunk = chunk_of<N>(total);
    const Share mine = team.share_of(columns.all / NR);
    for (size_t strip = mine.begin; strip < mine.end; strip++) {
        auto at = [&](size_t k, size_t column) {
            const size_t line = k < depth.all ? k : k - depth.all;
            const float* row = (k < depth.all ? first : second) + line * columns.there;
            return load_some(row, column, line < depth.there ? columns.there : 0);
        };
        for (size_t k = 0; k < total; k += N::PER_WORD) {
            const size_t begin = k / chunk * chunk, count = begin + chunk < total ? chunk : total - begin;
            const size_t column = strip * NR;
            float* to = packed + (begin * columns.all + column * count + (k - begin) * NR) / N::PER_WORD;
            for (size_t half = 0; half < NR; half += LANES)
                store(to + half, N::beside(at(k, column + half), N::PER_WORD == 1 ? vec{} : at(k + 1, column + half)));
        }
    }
}

// Rows [begin, end) of a source, numbers [k, k + count) of each -> rows of words, one after another; with tile registers squares of
// LANES words, those of N::ROWS rows one after another. Filled up with zeros to a multiple of N::ROWS rows.
template <class N, class Source>
static void pack_rows(const Source& source, size_t begin, size_t end, size_t k, size_t count, float* to) {
    constexpr size_t APART = IN_SQUARES<N> ? N::ROWS * LANES : LANES;
    const size_t words = count / N::PER_WORD, all = round_up(end - begin, N::ROWS);
    for (size_t i = 0; i < all; i++) {
        const size_t group = i / N::ROWS * N::ROWS;
        float* line = to + (IN_SQUARES<N> ? group * words + (i - group) * LANES : i * words);
        for (size_t word = 0; word < words; word += LANES, line += APART)
            store(line, begin + i < end
                            ? along<N>([&](size_t j) { return source.at(begin + i, k + word * N::PER_WORD + j); })
                            : vec{});
    }
}

// Rows [begin, end) of a source times packed columns. `finish(row, column, first, second)` gets NR sums of a row. With more
// than one chunk the sums so far are kept in `partial`, which has `columns` numbers a row from `begin` on.
template <class N, class Source, class Finish>
static void block_product(const Source& source, size_t begin, size_t end, size_t depth, const float* packed,
                          size_t columns, float* partial, float* room, const Finish& finish) {
    const size_t chunk = chunk_of<N>(depth);
    source.prepare(begin, end);
    for (size_t k = 0; k < depth; k += chunk) {
        const size_t count = k + chunk < depth ? chunk : depth - k, words = count / N::PER_WORD;
        const bool last = k + count == depth;
        pack_rows<N>(source, begin, end, k, count, room);
        const float* strip = packed + k * columns / N::PER_WORD;
        const size_t groups = (end - begin + N::ROWS - 1) / N::ROWS;
        for (size_t column = 0; column < columns; column += NR, strip += NR * words)
            for (size_t row = begin; row < end; row += N::ROWS) {
                vec sums[N::ROWS][2];
                if (column + NR < columns) fetch_part(strip + NR * words, words, columns, (row - begin) / N::ROWS, groups);
                multiply<N>(room + (row - begin) * words, words, 1, strip, words, sums);
                const size_t rows = end - row < N::ROWS ? end - row : N::ROWS;
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
