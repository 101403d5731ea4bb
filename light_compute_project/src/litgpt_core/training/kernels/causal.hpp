// Causal attention of the query heads of one group, forward and backward, over the lower triangle only. The softmax of MR
// queries is made while their scores are in the first-level cache; scores are never held for more than QUERIES of them.
//
//     keys, values, and in the backward pass queries and gradients, lie in strips: [NR dimensions][token][NR], and keys (for
//     scores) and values (for the gradient of weights) transposed too: [NR tokens][dimension][NR]
//
// What is multiplied is packed in words of `N` (numbers.hpp): of two dimensions for scores, of two tokens for sums over tokens.
// Dimensions are filled up with zeros to a multiple of NR, tokens to a multiple of NR and MR; what belongs to no token is
// computed and ignored.
#pragma once

#include "product.hpp"
#include "rows.hpp"

constexpr size_t QUERIES = 16 * MR;
constexpr size_t LINE = 16, AHEAD = 8;  // numbers in a cache line; rows that are fetched ahead

// Sizes and the thread's scratch memory.
struct CausalRoom {
    size_t wide, tokens, apart;  // padded head size, padded number of tokens, numbers between rows of scores
    float *keys_across, *keys, *values_across, *values, *queries, *gradients, *query_rows, *gradient_rows;
    float *key_sums, *value_sums, *weights, *slopes, *slope_words, *lines;

    static size_t padded_tokens(const Block& b) { return round_up(size_t(b.length), 3 * NR); }
    static size_t size(const Block& b) {
        const size_t wide = round_up(b.head_size, NR), tokens = padded_tokens(b), apart = tokens + NR;
        return 6 * tokens * wide + 4 * QUERIES * wide + 3 * QUERIES * apart + (LANES + 4) * wide;
    }
    CausalRoom(const Block& b, float* memory)
        : wide(round_up(b.head_size, NR)), tokens(padded_tokens(b)), apart(tokens + NR) {
        auto take = [&memory](size_t floats) {
            float* begin = memory;
            memory += floats;
            return begin;
        };
        keys_across = take(tokens * wide), keys = take(tokens * wide);
        values_across = take(tokens * wide), values = take(tokens * wide);
        key_sums = take(tokens * wide), value_sums = take(tokens * wide);
        queries = take(QUERIES * wide), gradients = take(QUERIES * wide);
        query_rows = take(QUERIES * wide), gradient_rows = take(QUERIES * wide);
        weights = take(QUERIES * apart), slopes = take(QUERIES * apart), slope_words = take(QUERIES * apart);
        lines = take((LANES + 4) * wide);
    }
};

template <class N> class Causal {
  public:
    Causal(const Block& block, float* memory)
        : b(block), room(block, memory), hs(block.head_size), wide(room.wide), length(block.length),
          across(size_t(block.heads + 2 * block.groups) * hs), mixed_width(size_t(block.heads) * hs) {}

    // qkv of one sequence (length, across) -> `mixed` (length, heads * hs) of the group's heads, and `partitions`.
    void forward(const float* qkv, size_t group, float* mixed, float* partitions) {
        place_keys(qkv, group, false);
        const size_t per_group = b.heads / b.groups;
        for (size_t head = group * per_group; head < (group + 1) * per_group; head++)
            for (size_t first = 0; first < length; first += MR) {
                const size_t rows = length - first < MR ? length - first : MR;
                for (size_t r = 0; r < MR; r++)
                    place_query(qkv, head, first + r, room.query_rows + r * wide);
                for (size_t r = 0; r < MR; r++) to_words(room.query_rows + r * wide, wide);
                scores(room.query_rows, first);
                float shares[MR];
                for (size_t r = 0; r < MR; r++) {
                    const float partition = softmax(room.weights + r * room.apart, first + r + 1, round_up(first + MR, NR), &shares[r]);
                    if (r < rows) partitions[(first + r) * b.heads + head] = partition;
                    to_words(room.weights + r * room.apart, round_up(first + MR, NR));
                }
                mix(first, rows, shares, mixed + head * hs);
            }
    }

    // Gradient of `mixed` -> gradient of qkv, both of one sequence; with norms of queries and keys the sums for their weights
    // and biases are added to (hs each).
    void backward(const float* qkv, size_t group, const float* mixed, const float* partitions, const float* gradient,
                  float* qkv_gradient, const NormGradient& query_sums, const NormGradient& key_sums) {
        place_keys(qkv, group, true);
        std::memset(room.key_sums, 0, room.tokens * wide * sizeof(float));
        std::memset(room.value_sums, 0, room.tokens * wide * sizeof(float));
        const size_t per_group = b.heads / b.groups;
        for (size_t head = group * per_group; head < (group + 1) * per_group; head++)
            for (size_t first = 0; first < length; first += QUERIES) {
                const size_t count = length - first < QUERIES ? length - first : QUERIES, padded = round_up(count, MR);
                float inner[QUERIES];
                for (size_t i = 0; i < padded; i += N::PER_WORD) {
                    for (size_t next = 0; next < N::PER_WORD; next++) place_pair(qkv, mixed, gradient, head, first, i + next, inner);
                    to_strips(room.query_rows + i * wide, i, QUERIES, room.queries);
                    to_strips(room.gradient_rows + i * wide, i, QUERIES, room.gradients);
                }
                for (size_t i = 0; i < padded; i++) {
                    to_words(room.query_rows + i * wide, wide);
                    to_words(room.gradient_rows + i * wide, wide);
                }
                for (size_t i = 0; i < padded; i += MR) {
                    slopes_of(i, first + i, partitions + head, inner);
                    pack_slopes(i, round_up(first + i + MR, NR));
                    query_gradient(qkv, head, i, first + i, qkv_gradient, query_sums);
                }
                for (size_t key = 0; key < first + padded; key += MR) {
                    add_products(room.weights, room.gradients, key, first, padded, room.value_sums);
                    add_products(room.slope_words, room.queries, key, first, padded, room.key_sums);
                }
            }
        for (size_t t = 0; t < length; t++) {
            float* to = qkv_gradient + t * across + size_t(b.heads + group) * hs;
            write_gradient(b.norm_k, qkv + t * across + size_t(b.heads + group) * hs, t, room.key_sums + t * wide, to, key_sums);
            copy_row(room.value_sums + t * wide, hs, to + size_t(b.groups) * hs, hs);
        }
    }

  private:
    const Block& b;
    const CausalRoom room;
    const size_t hs, wide, length, across, mixed_width;

    // Rows of a head lie too far apart for the hardware to prefetch them.
    void fetch_row(const float* row) const {
        for (size_t i = 0; i < hs; i += LINE) __builtin_prefetch(row + i);
    }

    // One query or key: norm, rotation, zeros up to `wide`; zeros after the last token.
    void place(const Norm& norm, const float* from, size_t token, float* to) const {
        fetch_row(from + AHEAD * across);
        copy_row(from, hs, to, wide);
        if (norm.present) {
            float mean, scale;
            statistics(from, hs, b.rms, norm.eps, &mean, &scale);
            for (size_t i = 0; i < hs; i += LANES) store(to + i, normalised(norm, load<vec>(from + i), mean, scale, i));
        }
        if (b.rope_pairs) rotate(to, b.cosine + token * b.rope_pairs, b.sine + token * b.rope_pairs, b.rope_pairs, 1.0f);
    }

    void place_query(const float* qkv, size_t head, size_t token, float* to) const {
        if (token < length)
            place(b.norm_q, qkv + token * across + head * hs, token, to);
        else
            copy_row(nullptr, 0, to, wide);
    }

    // A row of numbers, a multiple of NR -> of words, in its place.
    static void to_words(float* row, size_t size) {
        if constexpr (N::PER_WORD == 2)
            for (size_t i = 0; i < size; i += 2 * LANES)
                store(row + i / 2, N::along(load<vec>(row + i), load<vec>(row + i + LANES)));
    }

    // Rows of `wide` numbers, as many as a word holds -> their place in strips of `tokens` tokens.
    void to_strips(const float* rows, size_t token, size_t tokens, float* strips) const {
        for (size_t d = 0; d < wide; d += LANES) {
            const vec first = load<vec>(rows + d), second = N::PER_WORD == 2 ? load<vec>(rows + wide + d) : vec{};
            float* strip = strips + (d / NR * NR * tokens + token * NR) / N::PER_WORD;
            store(strip + d % NR, N::beside(first, second));
        }
    }

    // Rows [i, i + MR) of `weights` and `slopes`, `size` numbers of each: words of two queries for `add_products`, and of two keys
    // for the gradient of queries.
    void pack_slopes(size_t i, size_t size) const {
        for (size_t r = i; r < i + MR; r += N::PER_WORD) {
            float *weights = room.weights + r * room.apart, *slopes = room.slopes + r * room.apart;
            const size_t next = N::PER_WORD == 2 ? room.apart : 0, place = r / N::PER_WORD * room.apart;
            for (size_t k = 0; k < size; k += LANES) {
                store(room.slope_words + place + k, N::beside(load<vec>(slopes + k), load<vec>(slopes + next + k)));
                if (N::PER_WORD == 2)
                    store(room.weights + place + k, N::beside(load<vec>(weights + k), load<vec>(weights + next + k)));
            }
        }
        for (size_t r = i; r < i + MR; r++) to_words(room.slopes + r * room.apart, size);
    }

    // LANES rows -> their columns in transposed strips.
    void to_columns(const float* rows, size_t token, float* strips) const {
        float* to = strips + token / NR * NR * wide / N::PER_WORD + token % NR;
        for (size_t d = 0; d < wide; d += LANES * N::PER_WORD) {
            vec square[LANES];
            for (size_t r = 0; r < size_t(LANES); r++)
                square[r] = along<N>([&](size_t j) { return load<vec>(rows + r * wide + d + j); });
            transpose(square);
            for (size_t r = 0; r < size_t(LANES); r++) store(to + (d / N::PER_WORD + r) * NR, square[r]);
        }
    }

    void place_keys(const float* qkv, size_t group, bool backward) const {
        for (size_t t = 0; t < room.tokens; t += LANES)
            for (int values = 0; values < 2; values++) {
                const size_t head = b.heads + group + (values ? b.groups : 0);
                for (size_t r = 0; r < size_t(LANES); r++) {
                    float* row = room.lines + r * wide;
                    const float* from = qkv + (t + r) * across + head * hs;
                    if (t + r >= length) {
                        copy_row(nullptr, 0, row, wide);
                    } else if (values) {
                        fetch_row(from + AHEAD * across);
                        copy_row(from, hs, row, wide);
                    } else {
                        place(b.norm_k, from, t + r, row);
                    }
                }
                for (size_t r = 0; (values || backward) && r < size_t(LANES); r += N::PER_WORD)
                    to_strips(room.lines + r * wide, t + r, room.tokens, values ? room.values : room.keys);
                if (!values || backward) to_columns(room.lines, t, values ? room.values_across : room.keys_across);
            }
    }

    // MR rows, of words, times the columns of NR tokens.
    void across_tile(const float* rows, const float* columns, size_t token, vec (&sums)[MR][2]) const {
        tile<N>(rows, wide, 1, columns + token * wide / N::PER_WORD, NR, wide / N::PER_WORD, sums);
    }

    // Scaled scores of MR queries and the keys up to the last of them, into the first rows of `weights`.
    void scores(const float* rows, size_t first) const {
        const float scale = float(b.score_scale);
        for (size_t key = 0; key < first + MR; key += NR) {
            vec sums[MR][2] = {};
            across_tile(rows, room.keys_across, key, sums);
#pragma GCC unroll 12
            for (size_t r = 0; r < MR; r++) {
                store(room.weights + r * room.apart + key, sums[r][0] * scale);
                store(room.weights + r * room.apart + key + LANES, sums[r][1] * scale);
            }
        }
    }

    // In place: `seen` scores -> numbers in proportion to their softmax, zeros up to `end`. Returns the logarithm of the sum of
    // exponentials; `share` is what the numbers are to be multiplied with.
    static float softmax(float* row, size_t seen, size_t end, float* share) {
        const size_t whole = round_up(seen, LANES), all = round_up(end, LANES);
        const size_t last = whole - LANES;
        store(row + last, first_lanes(load<vec>(row + last), seen - last, fill(-INFINITY)));
        vec tops = fill(-INFINITY);
        for (size_t i = 0; i < whole; i += LANES) tops = larger(tops, load<vec>(row + i));
        const float top = largest_of(tops);
        vec total{};
        for (size_t i = 0; i < whole; i += LANES) {
            const vec score = load<vec>(row + i), value = score == -INFINITY ? vec{} : bounded_exponential(score - top);
            store(row + i, value);
            total += value;
        }
        for (size_t i = whole; i < all; i += LANES) store(row + i, vec{});
        const float sum = sum_of(total);
        *share = 1.0f / sum;
        return top + std::log(sum);
    }

    void mix(size_t first, size_t rows, const float* shares, float* mixed) const {
        for (size_t d = 0; d < wide; d += NR) {
            vec sums[MR][2] = {};
            tile<N>(room.weights, room.apart, 1, room.values + d * room.tokens / N::PER_WORD, NR, (first + MR) / N::PER_WORD, sums);
            for (size_t r = 0; r < rows; r++) {
                float* to = mixed + (first + r) * mixed_width + d;
                store(to, sums[r][0] * shares[r]);
                if (d + LANES < hs) store(to + LANES, sums[r][1] * shares[r]);
            }
        }
    }

    // Query i of a block that begins at `first`, and the gradient of what it mixed, in rows; the inner product of gradient and mixed.
    void place_pair(const float* qkv, const float* mixed, const float* gradient, size_t head, size_t first, size_t i,
                    float* inner) const {
        float *query = room.query_rows + i * wide, *line = room.gradient_rows + i * wide;
        place_query(qkv, head, first + i, query);
        inner[i] = 0;
        if (first + i >= length) {
            copy_row(nullptr, 0, line, wide);
        } else {
            const size_t at = (first + i) * mixed_width + head * hs;
            fetch_row(gradient + at + AHEAD * mixed_width);
            fetch_row(mixed + at + AHEAD * mixed_width);
            copy_row(gradient + at, hs, line, wide);
            vec sum{};
            for (size_t d = 0; d < hs; d += LANES) sum += load<vec>(line + d) * load<vec>(mixed + at + d);
            inner[i] = sum_of(sum);
        }
    }

    // Rows [i, i + MR) of `weights` (softmax) and `slopes` (gradient of the unscaled scores), for the keys up to query
    // `first + MR - 1`; zeros where a query does not see a key.
    void slopes_of(size_t i, size_t first, const float* partitions, const float* inner) const {
        const float scale = float(b.score_scale);
        float partition[MR];
        for (size_t r = 0; r < MR; r++)
            partition[r] = first + r < length ? partitions[(first + r) * b.heads] : INFINITY;
        for (size_t key = 0; key < first + MR; key += NR) {
            vec score[MR][2] = {}, gradient[MR][2] = {};
            across_tile(room.query_rows + i * wide, room.keys_across, key, score);
            across_tile(room.gradient_rows + i * wide, room.values_across, key, gradient);
            const bool edge = key + NR > first + 1;
            for (size_t r = 0; r < MR; r++)
                for (size_t half = 0; half < 2; half++) {
                    const size_t at = (i + r) * room.apart + key + half * LANES;
                    vec weight = bounded_exponential(score[r][half] * scale - partition[r]);
                    if (edge) weight = hidden_keys(key + half * LANES, first + r) ? vec{} : visible(weight, key + half * LANES, first + r);
                    store(room.weights + at, weight);
                    store(room.slopes + at, weight * (gradient[r][half] - inner[i + r]) * scale);
                }
        }
    }

    bool hidden_keys(size_t key, size_t query) const { return key > query || query >= length; }

    // `weight` of keys from `key` on where they are not after `query`, else 0.
    static vec visible(vec weight, size_t key, size_t query) {
        return first_lanes(weight, query - key + 1, vec{});
    }

    void query_gradient(const float* qkv, size_t head, size_t i, size_t first, float* to, const NormGradient& sums_to) const {
        float* rows = room.lines;  // MR rows of `wide`
        for (size_t d = 0; d < wide; d += NR) {
            vec sums[MR][2] = {};
            tile<N>(room.slopes + i * room.apart, room.apart, 1, room.keys + d * room.tokens / N::PER_WORD, NR,
                    (first + MR) / N::PER_WORD, sums);
            for (size_t r = 0; r < MR; r++) {
                store(rows + r * wide + d, sums[r][0]);
                store(rows + r * wide + d + LANES, sums[r][1]);
            }
        }
        for (size_t r = 0; r < MR && first + r < length; r++) {
            const size_t at = (first + r) * across + head * hs;
            write_gradient(b.norm_q, qkv + at, first + r, rows + r * wide, to + at, sums_to);
        }
    }

    // sums[key ...] += (MR columns of `factors` from `key` on)^T times the rows of `strips`, from the first query that sees them.
    void add_products(const float* factors, const float* strips, size_t key, size_t first, size_t count, float* sums) const {
        const size_t begin = key > first ? (key - first) / MR * MR : 0;
        for (size_t d = 0; d < wide; d += NR) {
            vec total[MR][2];
#pragma GCC unroll 12
            for (size_t r = 0; r < MR; r++) {
                total[r][0] = load<vec>(sums + (key + r) * wide + d);
                total[r][1] = load<vec>(sums + (key + r) * wide + d + LANES);
            }
            tile<N>(factors + begin / N::PER_WORD * room.apart + key, 1, room.apart,
                    strips + (d * QUERIES + begin * NR) / N::PER_WORD, NR, (count - begin) / N::PER_WORD, total);
#pragma GCC unroll 12
            for (size_t r = 0; r < MR; r++) {
                store(sums + (key + r) * wide + d, total[r][0]);
                store(sums + (key + r) * wide + d + LANES, total[r][1]);
            }
        }
    }

    // Back through rotation and norm; `gradient` (hs numbers) is changed.
    void write_gradient(const Norm& norm, const float* from, size_t token, float* gradient, float* to,
                        const NormGradient& sums) const {
        if (b.rope_pairs)
            rotate(gradient, b.cosine + token * b.rope_pairs, b.sine + token * b.rope_pairs, b.rope_pairs, -1.0f);
        if (!norm.present) {
            copy_row(gradient, hs, to, hs);
            return;
        }
        float mean, scale;
        statistics(from, hs, b.rms, norm.eps, &mean, &scale);
        norm_gradient(norm, from, mean, scale, b.rms, hs, gradient, nullptr, to, sums.weight, sums.bias);
    }
};
