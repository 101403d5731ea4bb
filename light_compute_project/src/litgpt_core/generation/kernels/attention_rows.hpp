// Attention of one query head for ROWS consecutive tokens of one sequence, as in a prompt: keys and values are read once
// for all of them, and there are enough independent sums to hide the latency of additions. Every number is added up in the
// order of attention.hpp, so a token's result is the same to the last bit as that of the token alone.
//
//     scores     ROWS queries times 2 slots at a time
//     values     ROWS weights times 2 vectors of dimensions at a time; slots that only later tokens see come last
#pragma once

#include "attention.hpp"

constexpr int ROWS = 4;

// queries (ROWS, size) . keys (slots, size) -> scores (ROWS, apart) of slots [0, last).
template <class C>
static inline void score_rows(const float* queries, const C* keys, size_t size, int64_t last, float* scores, size_t apart) {
    constexpr int STEP = sizeof(C) == sizeof(float) ? LANES : BLOCK, VECTORS = STEP / LANES;
    for (int64_t s = 0; s < last; s += LANES) {
        vec sums[ROWS][LANES];
        for (int i = 0; i < LANES; i += 2) {
            const C *one = keys + (s + i) * size, *two = one + size;
            vec total[ROWS][2] = {};
            for (size_t d = 0; d < size; d += STEP) {
                vec a[2], b[2];
                if constexpr (VECTORS == 1)
                    a[0] = load<vec>(one + d), b[0] = load<vec>(two + d);
                else
                    decode(one + d, a[0], a[1]), decode(two + d, b[0], b[1]);
#pragma GCC unroll 2
                for (int v = 0; v < VECTORS; v++)
#pragma GCC unroll 4
                    for (int r = 0; r < ROWS; r++) {
                        const vec q = in_register(load<vec>(queries + r * size + d + v * LANES));
                        total[r][0] += q * a[v];
                        total[r][1] += q * b[v];
                    }
            }
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; r++) sums[r][i] = total[r][0], sums[r][i + 1] = total[r][1];
        }
        for (int r = 0; r < ROWS; r++) store(scores + r * apart + s, sums_of(sums[r]));
    }
}

// LANES * 2 dimensions of slots 0, STEP, 2 * STEP, ... from `slot` on: those below `common` for all rows, the others for
// the rows that see them; row r sees common + r slots.
template <int STEP, class C>
static inline void mix_slots(const float* weights, size_t apart, const C* values, size_t size, int64_t slot, int64_t common,
                             vec total[ROWS][2]) {
    for (; slot < common; slot += STEP) {
        vec first, second;
        decode(values + slot * size, first, second);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            total[r][0] += weights[r * apart + slot] * first;
            total[r][1] += weights[r * apart + slot] * second;
        }
    }
    for (; slot < common + ROWS - 1; slot += STEP) {
        vec first, second;
        decode(values + slot * size, first, second);
        for (int r = int(slot - common) + 1; r < ROWS; r++) {
            total[r][0] += weights[r * apart + slot] * first;
            total[r][1] += weights[r * apart + slot] * second;
        }
    }
}

// weights (ROWS, apart) times values (slots, size) -> out, `count` numbers for each row, `width` apart.
static inline void mix_rows(const float* weights, size_t apart, const float* values, size_t size, int64_t common, float* out,
                            size_t count, size_t width) {
    for (size_t d = 0; d < size; d += BLOCK) {
        vec total[ROWS][2] = {};
        mix_slots<1>(weights, apart, values + d, size, 0, common, total);
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < 2; v++) put_lanes(total[r][v], out + r * width, d + v * LANES, count);
    }
}

static inline void mix_rows(const float* weights, size_t apart, const bf16* values, size_t size, int64_t common, float* out,
                            size_t count, size_t width) {
    for (size_t d = 0; d < size; d += BLOCK) {
        vec even_slots[ROWS][2] = {}, odd_slots[ROWS][2] = {};
        mix_slots<2>(weights, apart, values + d, size, 0, common, even_slots);
        mix_slots<2>(weights, apart, values + d, size, 1, common, odd_slots);
        for (int r = 0; r < ROWS; r++) {
            const vec first = even_slots[r][0] + odd_slots[r][0], second = even_slots[r][1] + odd_slots[r][1];
            put_lanes(alternate_low(first, second), out + r * width, d, count);
            put_lanes(alternate_high(first, second), out + r * width, d + LANES, count);
        }
    }
}

// As Cache<C>::attend, for ROWS tokens without a window: `q` is that of the first, the queries of the others follow its
// own at a distance of q.wide, scores are `apart` numbers apart, outputs `width`; `spare` has room for ROWS * wide.
template <class C>
static inline void attend_rows(const HeadInput& q, size_t apart, const C* keys, const C* values, float* out, size_t width) {
    float* queries = q.spare;
    for (int r = 0; r < ROWS; r++) pack(q.query + r * q.wide, queries + r * q.wide, q.wide, static_cast<const C*>(nullptr));
    score_rows(queries, keys, q.wide, q.last + ROWS - 1, q.scores, apart);
    for (int r = 0; r < ROWS; r++) softmax(q.scores + r * apart, q.last + r, q.scale, q.cap);
    mix_rows(q.scores, apart, values, q.wide, q.last, out, q.head_size, width);
}
