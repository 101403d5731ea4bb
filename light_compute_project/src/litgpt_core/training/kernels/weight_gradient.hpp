// Gradients of weights: the gradients of what they made, transposed, times what they read, a sum over tokens.
//
// A chunk of the tokens at a time: all threads pack what the weights read, then take groups of rows of the weights, one by one.
#pragma once

#include "product.hpp"

constexpr size_t GROUPS_OF_THREAD = 2, LEAST_STRIPS = 3;  // tasks of a matrix for each thread, and strips of a task, at least

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

// Tasks of a product: groups of strips, of about equal size. Each reads all packed inputs, so they should not be small; but
// no thread should have none.
template <class N> static size_t gradient_tasks(size_t m, size_t threads) {
    const size_t strips = (m + N::ROWS - 1) / N::ROWS, fewest = (strips + BLOCK_STRIPS<N> - 1) / BLOCK_STRIPS<N>;
    const size_t wanted = std::max(std::min(GROUPS_OF_THREAD * threads, strips / LEAST_STRIPS), std::min(threads, strips));
    return std::max(fewest, wanted);
}

// Products over the same tokens, the one with the largest tasks first. `shared` holds 2 * DEPTH floats for each of their columns.
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
        team.for_each((gradient_tasks<N>(products.m, size_t(team.threads)) + ...), [&](size_t task) {
            const float* inputs = chunk_of_inputs;
            auto try_one = [&](const auto& product) {
                const size_t tasks = gradient_tasks<N>(product.m, size_t(team.threads));
                const size_t strips = (product.m + N::ROWS - 1) / N::ROWS;
                if (task < tasks) {
                    gradient_rows<N>(product, t, count, inputs, strips * task / tasks, strips * (task + 1) / tasks, room);
                    return true;
                }
                task -= tasks, inputs += product.out.columns.all * words_of<N>(count);
                return false;
            };
            (try_one(products) || ...);
        });
    }
}
