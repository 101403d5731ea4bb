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
constexpr size_t GROUPS_OF_THREAD = 2, LEAST_STRIPS = 3;          // of a weight's gradient: pieces of work, and their size
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

// Columns [begin, end) of a (tokens, width) matrix, of `count` tokens -> packed rows. Their sums over the tokens go to `sums`
// if it is not null. Rows are read from left to right: columns one after another would fetch every line of memory again.
template <class N>
static inline void pack_gradients(const float* from, size_t width, size_t begin, size_t end, size_t count, float* to,
                                  float* sums) {
    const size_t apart = MR * ((count + N::PER_WORD - 1) / N::PER_WORD);  // numbers between groups of columns
    vec totals[BLOCK_STRIPS<N>][4] = {};                                  // four, which is more exact than one long sum
    for (size_t i = 0; i < count; i += N::PER_WORD) {
        const float *row = from + i * width, *next = row + width;
        const bool both = N::PER_WORD == 2 && i + 1 < count;
        float* place = to + i / N::PER_WORD * MR;
        for (size_t column = begin; column < end; column += 16) __builtin_prefetch(row + 8 * width + column);
        for (size_t column = begin, group = 0; column < end; column += MR, group++, place += apart) {
            const vec first = load_some(row, column, width), second = both ? load_some(next, column, width) : vec{};
            const vec words = N::beside(first, second);
            if (i + N::PER_WORD < count)
                store(place, words);  // LANES numbers, of which the next store replaces those after MR
            else
                std::memcpy(place, &words, MR * sizeof(float));
            if (sums) totals[group][i % 4] += first, totals[group][(i + 1) % 4] += second;
        }
    }
    if (!sums) return;
    for (size_t column = begin, group = 0; column < end; column += MR, group++) {
        const vec total = (totals[group][0] + totals[group][1]) + (totals[group][2] + totals[group][3]);
        for (size_t r = 0; r < MR && column + r < end; r++) sums[column - begin + r] = total[r];
    }
}

// The same for tile registers: every square is transposed.
template <class N>
static inline void pack_gradient_squares(const float* from, size_t width, size_t begin, size_t end, size_t count, float* to,
                                         float* sums) {
    constexpr size_t GROUPS = BLOCK_ROWS<N> / LANES;
    const size_t words = words_of<N>(count), columns = round_up(end - begin, N::ROWS);
    vec totals[GROUPS][4] = {};
    for (size_t word = 0; word < words; word += LANES)
        for (size_t group = 0; group < columns / LANES; group++) {
            vec square[LANES];
            for (size_t r = 0; r < size_t(LANES); r++) {
                const size_t i = (word + r) * N::PER_WORD, column = begin + group * LANES;
                const vec first = i < count ? load_some(from + i * width, column, width) : vec{};
                const vec second = i + 1 < count ? load_some(from + (i + 1) * width, column, width) : vec{};
                square[r] = N::beside(first, second);
                if (sums) totals[group][i % 4] += first, totals[group][(i + 1) % 4] += second;
            }
            transpose(square);
            float* place = to + group * LANES / N::ROWS * N::ROWS * words + word * N::ROWS + group * LANES % N::ROWS * LANES;
            for (size_t r = 0; r < size_t(LANES); r++) store(place + r * LANES, square[r]);
        }
    for (size_t i = 0; sums && i < end - begin; i++) {
        const vec* of = totals[i / LANES];
        sums[i] = ((of[0] + of[1]) + (of[2] + of[3]))[i % LANES];
    }
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

// A product whose result is the gradient of weights: outputs^T (m, tokens) times inputs (tokens, n), n being the columns of `out`;
// and the sums of `outputs` over the tokens. With `add` both are added to what is there.
template <class Source> struct GradientProduct {
    const float* outputs;
    size_t m;
    Source inputs;
    MatrixGradient out;
    bool add = false;
};

// Tokens [t, t + count): the columns of `packed`, in strips. A part of them for each thread; ends without a barrier.
template <class N, class Source>
static void pack_inputs(const Team& team, const GradientProduct<Source>& of, size_t t, size_t count, float* packed) {
    const size_t words = words_of<N>(count);
    const Share lines = team.share_of(words);
    for (size_t i = lines.begin; i < lines.end; i++) {
        const size_t line = i * N::PER_WORD;
        const bool one = !IN_SQUARES<N> || line < count, both = N::PER_WORD == 2 && line + 1 < count;
        for (size_t column = 0; column < of.out.columns.all; column += LANES)
            store(packed + column / NR * NR * words + i * NR + column % NR,
                  N::beside(one ? of.inputs.at(t + line, column) : vec{}, both ? of.inputs.at(t + line + 1, column) : vec{}));
    }
}

// Tokens [t, t + count), strips [begin, end) of N::ROWS rows, BLOCK_STRIPS at most. `room` is the thread's.
template <class N, class Source>
static void gradient_rows(const GradientProduct<Source>& of, size_t t, size_t count, const float* packed, size_t begin,
                          size_t end, float* room) {
    const size_t n = of.out.columns.all, m = of.m, words = words_of<N>(count);
    const size_t first = begin * N::ROWS, stop = end * N::ROWS < m ? end * N::ROWS : m;
    const bool add = t > 0 || of.add;
    float sums[BLOCK_ROWS<N>];
    float* wanted = of.out.bias(first) ? sums : nullptr;
    if constexpr (IN_SQUARES<N>)
        pack_gradient_squares<N>(of.outputs + t * m, m, first, stop, count, room, wanted);
    else
        pack_gradients<N>(of.outputs + t * m, m, first, stop, count, room, wanted);
    for (size_t row = first; row < stop; row++)
        if (float* bias = of.out.bias(row)) *bias = add ? *bias + sums[row - first] : sums[row - first];
    for (size_t column = 0; column < n; column += NR)
        for (size_t strip = begin; strip < end; strip++) {
            const size_t row = strip * N::ROWS, rows = m - row < N::ROWS ? m - row : N::ROWS;
            for (size_t r = 0; r < rows; r++)
                if (const float* to = of.out.row(row + r)) __builtin_prefetch(to + column, 1);
            vec total[N::ROWS][2];
            if (column + NR < n) fetch_part(packed + (column + NR) * words, words, n, strip - begin, end - begin);
            multiply<N>(room + (strip - begin) * N::ROWS * words, 1, MR, packed + column * words, words, total);
            for (size_t r = 0; r < rows; r++) of.out.put(row + r, column, total[r][0], total[r][1], add);
        }
}

// Pieces of work of a product: groups of strips, of about equal size. Each reads all packed inputs, so they should not be small; but
// no thread should have none.
template <class N> static size_t gradient_pieces(size_t m, size_t threads) {
    const size_t strips = (m + N::ROWS - 1) / N::ROWS, fewest = (strips + BLOCK_STRIPS<N> - 1) / BLOCK_STRIPS<N>;
    const size_t wanted = std::max(std::min(GROUPS_OF_THREAD * threads, strips / LEAST_STRIPS), std::min(threads, strips));
    return std::max(fewest, wanted);
}

// Products over the same tokens, the one with the largest pieces first. `shared` holds 2 * DEPTH floats for each of their columns.
// Ends without a barrier.
template <class N, class... Sources>
static void gradient_products(const Team& team, size_t tokens, float* shared, float* room,
                              const GradientProduct<Sources>&... products) {
    const size_t chunk = chunk_of<N>(tokens), columns = (products.out.columns.all + ...);
    for (size_t t = 0, turn = 0; t < tokens; t += chunk, turn ^= 1) {
        const size_t count = t + chunk < tokens ? chunk : tokens - t;
        float* const chunk_of_inputs = shared + turn * DEPTH * columns;
        float* packed = chunk_of_inputs;
        ((pack_inputs<N>(team, products, t, count, packed), packed += products.out.columns.all * words_of<N>(count)), ...);
        team.wait();
        team.for_each((gradient_pieces<N>(products.m, size_t(team.threads)) + ...), [&](size_t piece) {
            const float* inputs = chunk_of_inputs;
            auto try_one = [&](const auto& product) {
                const size_t pieces = gradient_pieces<N>(product.m, size_t(team.threads));
                const size_t strips = (product.m + N::ROWS - 1) / N::ROWS;
                if (piece < pieces) {
                    gradient_rows<N>(product, t, count, inputs, strips * piece / pieces, strips * (piece + 1) / pieces, room);
                    return true;
                }
                piece -= pieces, inputs += product.out.columns.all * words_of<N>(count);
                return false;
            };
            (try_one(products) || ...);
        });
    }
}
