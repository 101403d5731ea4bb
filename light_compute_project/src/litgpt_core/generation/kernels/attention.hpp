// Attention of one query head over the cached keys and values of its group, which are fp32 or bf16; everything else is
// fp32. The slots of the cache are stored consecutively; attention_pairs.hpp has functions for another layout,
// attention_int8.hpp for keys and values in 8 bits.
#pragma once

#include <cmath>

#include "matmul.hpp"

// What will be read next is fetched meanwhile: the caches of many sequences do not fit the processor's caches.
template <class C> static inline void fetch_soon(const C* from, size_t count) {
    for (size_t i = 0; i < count; i += 64 / sizeof(C)) __builtin_prefetch(from + i, 0, 3);
}

// query (size) . keys (slots, size) -> scores for slots [first, last); `size` is a multiple of LANES. Slots are taken
// LANES at a time from `first` on, so up to LANES - 1 numbers after `last` are written too: the caller ignores them. The
// same slots of `soon` are fetched.
static inline void score(const float* query, const float* keys, size_t size, int64_t first, int64_t last, float* scores,
                         const float* soon) {
    for (int64_t s = first; s < last; s += LANES) {
        fetch_soon(soon + s * size, LANES * size);
        vec total[LANES] = {};
        for (size_t d = 0; d < size; d += LANES) {
            const vec q = load<vec>(query + d);
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) total[i] += q * load<vec>(keys + (s + i) * size + d);
        }
        store(scores + s - first, sums_of(total));
    }
}

// The same for bf16 keys and a query that was packed for them; `size` is a multiple of BLOCK.
static inline void score(const float* query, const bf16* keys, size_t size, int64_t first, int64_t last, float* scores,
                         const bf16* soon) {
    for (int64_t s = first; s < last; s += LANES) {
        fetch_soon(soon + s * size, LANES * size);
        vec total[LANES] = {};
        for (size_t d = 0; d < size; d += BLOCK) {
            const vec q_evens = load<vec>(query + d), q_odds = load<vec>(query + d + LANES);
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) {
                vec evens, odds;
                decode(keys + (s + i) * size + d, evens, odds);
                total[i] += q_evens * evens;
                total[i] += q_odds * odds;
            }
        }
        store(scores + s - first, sums_of(total));
    }
}

// In place: `n` scores times `scale`, soft-capped if `cap` is not 0; -infinity up to the next whole vector. Returns the
// largest.
static inline float scale_scores(float* scores, int64_t n, float scale, float cap) {
    vec tops = fill(-INFINITY);
    for (int64_t i = 0; i < n; i += LANES) {
        vec value = load<vec>(scores + i) * scale;
        if (cap != 0) value = hyperbolic_tangent(value / cap) * cap;
        store(scores + i, value);
        for (int64_t k = n; k < i + LANES; k++) scores[k] = -INFINITY;
        tops = larger(tops, load<vec>(scores + i));
    }
    return largest_of(tops);
}

// In place: softmax of `n` scores times `scale`, soft-capped if `cap` is not 0. Room for LANES - 1 more is used.
static inline void softmax(float* scores, int64_t n, float scale, float cap) {
    const float top = scale_scores(scores, n, scale, cap);
    vec sums{};
    for (int64_t i = 0; i < n; i += LANES) {
        const vec value = exponential(load<vec>(scores + i) - top);  // at least e^-87 instead of 0
        store(scores + i, value);
        sums += value;
    }
    const vec share = fill(1.0f / sum_of(sums));
    for (int64_t i = 0; i < n; i += LANES) store(scores + i, load<vec>(scores + i) * share);
}

// Lanes of dimensions `at`, at + 1, ... -> out, those below `count`.
static inline void put_lanes(vec value, float* out, size_t at, size_t count) {
    if (at + LANES <= count)
        store(out + at, value);
    else
        for (int lane = 0; lane < LANES && at + lane < count; lane++) out[at + lane] = value[lane];
}

// N vectors of dimensions, from `values` on.
template <int N>
static inline void mix_vectors(const float* weights, const float* values, size_t size, int64_t first, int64_t last,
                               float* out, size_t count, const float* soon) {
    vec total[N] = {};
    for (int64_t s = first; s < last; s++) {
        fetch_soon(soon + s * size, N * LANES);
#pragma GCC unroll 4
        for (int i = 0; i < N; i++) total[i] += weights[s - first] * load<vec>(values + s * size + i * LANES);
    }
    for (int i = 0; i < N; i++) put_lanes(total[i], out, i * LANES, count);
}

// sum over slots [first, last) of weights[slot - first] * values (slots, size) -> out (count <= size); fetches the same
// slots of `soon`.
static inline void mix(const float* weights, const float* values, size_t size, int64_t first, int64_t last, float* out,
                       size_t count, const float* soon) {
    const auto left = [&](size_t d) { return count > d ? count - d : 0; };
    size_t d = 0;
    for (; d + 4 * LANES <= size; d += 4 * LANES)
        mix_vectors<4>(weights, values + d, size, first, last, out + d, left(d), soon + d);
    for (; d + 2 * LANES <= size; d += 2 * LANES)
        mix_vectors<2>(weights, values + d, size, first, last, out + d, left(d), soon + d);
    if (d < size) mix_vectors<1>(weights, values + d, size, first, last, out + d, left(d), soon + d);
}

// The same for bf16 values: BLOCKS * BLOCK dimensions of n slots. Even and odd elements are summed separately and then put
// in order; slots are processed in pairs, so that there are enough independent additions.
template <int BLOCKS>
static inline void mix_blocks(const float* weights, const bf16* values, size_t size, int64_t n, float* out, size_t count,
                              const bf16* soon) {
    vec total[2][2 * BLOCKS] = {};
    for (int64_t s = 0; s < n; s += 2) {
        fetch_soon(soon + s * size, BLOCKS * BLOCK);
        fetch_soon(soon + (s + 1) * size, BLOCKS * BLOCK);
#pragma GCC unroll 2
        for (int turn = 0; turn < 2; turn++) {
            if (s + turn == n) break;
#pragma GCC unroll 2
            for (int k = 0; k < BLOCKS; k++) {
                vec evens, odds;
                decode(values + (s + turn) * size + k * BLOCK, evens, odds);
                total[turn][2 * k] += weights[s + turn] * evens;
                total[turn][2 * k + 1] += weights[s + turn] * odds;
            }
        }
    }
    for (int k = 0; k < BLOCKS; k++) {
        const vec evens = total[0][2 * k] + total[1][2 * k], odds = total[0][2 * k + 1] + total[1][2 * k + 1];
        put_lanes(alternate_low(evens, odds), out, k * BLOCK, count);
        put_lanes(alternate_high(evens, odds), out, k * BLOCK + LANES, count);
    }
}

static inline void mix(const float* weights, const bf16* values, size_t size, int64_t first, int64_t last, float* out,
                       size_t count, const bf16* soon) {
    values += first * size, soon += first * size;
    size_t d = 0;
    for (; d + 2 * BLOCK <= size; d += 2 * BLOCK)
        mix_blocks<2>(weights, values + d, size, last - first, out + d, count > d ? count - d : 0, soon + d);
    if (d < size) mix_blocks<1>(weights, values + d, size, last - first, out + d, count > d ? count - d : 0, soon + d);
}

// The attention of one query head over the cache of its group.
struct HeadInput {
    const float* query;  // (wide), filled up with zeros
    size_t head_size, wide;
    int64_t first, last;  // slots [first, last) are seen
    float scale, cap;
    float* scores;  // room for one number per slot of the cache, and 64 more
    float* spare;   // room for `wide` numbers, and for one per slot of the cache
};

// The cache of one sequence and group: (slots, wide).
template <class C> struct Cache {
    static constexpr bool BY_ROWS = true;  // whether attention_rows.hpp knows its layout
    // Elements of the cache of one sequence and group.
    static inline size_t stride(size_t slots, size_t wide) { return slots * wide; }
    static inline void put(C* to, int64_t slot, const float* numbers, size_t size, size_t wide) {
        to += slot * wide;
        if constexpr (sizeof(C) == sizeof(float))
            std::memcpy(to, numbers, size * sizeof(float));
        else
            for (size_t i = 0; i < size; i++) to[i] = narrow(numbers[i]);
        std::memset(to + size, 0, (wide - size) * sizeof(C));
    }
    // Called some time before `put_key` and `put_value`.
    static inline void prefetch_key(const C* keys, int64_t slot, size_t wide) {
        for (size_t i = 0; i < wide; i += 64 / sizeof(C)) __builtin_prefetch(keys + slot * wide + i, 1);
    }
    static inline void prefetch_value(const C* values, int64_t slot, size_t wide) { prefetch_key(values, slot, wide); }
    static inline void put_key(C* keys, int64_t slot, const float* numbers, size_t size, size_t wide, float*) {
        put(keys, slot, numbers, size, wide);
    }
    static inline void put_value(C* values, int64_t slot, const float* numbers, size_t size, size_t wide, float*) {
        put(values, slot, numbers, size, wide);
    }

    // The output of the head -> out (head_size). `next` are the keys that will be read after these.
    static inline void attend(const HeadInput& q, const C* keys, const C* values, const C* next, float* out) {
        pack(q.query, q.spare, q.wide, static_cast<const C*>(nullptr));
        score(q.spare, keys, q.wide, q.first, q.last, q.scores, values);
        softmax(q.scores, q.last - q.first, q.scale, q.cap);
        mix(q.scores, values, q.wide, q.first, q.last, out, q.head_size, next);
    }
};
