// One query head over the cached keys and values of its group, which are fp32 or bf16; everything else is fp32.
#pragma once

#include <cmath>

#include "matmul.hpp"

// query (size) . keys (slots, size) -> scores for slots [first, last); `size` is a multiple of LANES. Slots are taken
// LANES at a time from `first` on, so up to LANES - 1 numbers behind `last` are written too: the caller ignores them.
static inline void score(const float* query, const float* keys, size_t size, int64_t first, int64_t last, float* scores) {
    for (int64_t s = first; s < last; s += LANES) {
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
static inline void score(const float* query, const bf16* keys, size_t size, int64_t first, int64_t last, float* scores) {
    for (int64_t s = first; s < last; s += LANES) {
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

// In place: softmax of `n` scores times `scale`, soft-capped if `cap` is not 0. Room for LANES - 1 more is used.
static inline void softmax(float* scores, int64_t n, float scale, float cap) {
    vec tops = fill(-INFINITY);
    for (int64_t i = 0; i < n; i += LANES) {
        vec value = load<vec>(scores + i) * scale;
        if (cap != 0) value = hyperbolic_tangent(value / cap) * cap;
        store(scores + i, value);
        for (int64_t k = n; k < i + LANES; k++) scores[k] = -INFINITY;
        tops = larger(tops, load<vec>(scores + i));
    }
    float top = tops[0];
    for (int i = 1; i < LANES; i++) top = tops[i] > top ? tops[i] : top;
    vec sums{};
    for (int64_t i = 0; i < n; i += LANES) {
        const vec value = exponential(load<vec>(scores + i) - top);  // at least e^-87, where 0 was meant
        store(scores + i, value);
        sums += value;
    }
    const vec share = fill(1.0f / sum_of(sums));
    for (int64_t i = 0; i < n; i += LANES) store(scores + i, load<vec>(scores + i) * share);
}

// sum over slots [first, last) of weights[slot - first] * values (slots, size) -> out (wanted <= size)
static inline void mix(const float* weights, const float* values, size_t size, int64_t first, int64_t last, float* out,
                       size_t wanted) {
    constexpr int AT_ONCE = 4;
    for (size_t d = 0; d < size; d += AT_ONCE * LANES) {
        vec total[AT_ONCE] = {};
        const int vectors = int((size - d) / LANES < AT_ONCE ? (size - d) / LANES : AT_ONCE);
        if (vectors == AT_ONCE) {
            for (int64_t s = first; s < last; s++)
#pragma GCC unroll 4
                for (int i = 0; i < AT_ONCE; i++)
                    total[i] += weights[s - first] * load<vec>(values + s * size + d + i * LANES);
        } else {
            for (int64_t s = first; s < last; s++)
                for (int i = 0; i < vectors; i++)
                    total[i] += weights[s - first] * load<vec>(values + s * size + d + i * LANES);
        }
        for (int i = 0; i < vectors; i++)
            for (int lane = 0; lane < LANES && d + i * LANES + lane < wanted; lane++)
                out[d + i * LANES + lane] = total[i][lane];
    }
}

// The same for bf16 values; `size` is a multiple of BLOCK. Evens and odds are summed apart and put back in order.
static inline void mix(const float* weights, const bf16* values, size_t size, int64_t first, int64_t last, float* out,
                       size_t wanted) {
    for (size_t d = 0; d < size; d += 2 * BLOCK) {
        const int blocks = size - d >= 2 * BLOCK ? 2 : 1;
        vec total[4] = {};
        for (int64_t s = first; s < last; s++) {
            const float weight = weights[s - first];
            for (int k = 0; k < blocks; k++) {
                vec evens, odds;
                decode(values + s * size + d + k * BLOCK, evens, odds);
                total[2 * k] += weight * evens;
                total[2 * k + 1] += weight * odds;
            }
        }
        for (int k = 0; k < blocks; k++)
            for (int lane = 0; lane < LANES; lane++) {
                const size_t at = d + k * BLOCK + 2 * lane;
                if (at < wanted) out[at] = total[2 * k][lane];
                if (at + 1 < wanted) out[at + 1] = total[2 * k + 1][lane];
            }
    }
}
