// The bf16 cache where the processor multiplies pairs of bf16 (see `Product` of packed_weights.hpp). Query and weights are
// rounded to bf16, sums are fp32.
//
//     keys    (slots / LANES, wide / 2, LANES, 2)   lanes are slots, pairs are dimensions: nothing is added up across lanes
//     values  (slots / 2, wide, 2)                  lanes are dimensions, pairs are slots
//
// The data to be read next is prefetched: the caches of many sequences do not fit the processor's caches.
#pragma once

#include "attention.hpp"
#include "packed_weights.hpp"

#if defined(__AVX512BF16__)

// N vectors' worth of memory, for soon.
template <int N> static inline void fetch(const bf16* from) {
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) __builtin_prefetch(from + i * BLOCK, 0, 3);
}

// Words of a query (wide / 2) . N blocks of LANES keys each -> N * LANES scores; two sums for each block.
template <int N>
static inline void score_pairs(const uint32_t* query, const bf16* keys, size_t wide, float* scores, const bf16* soon) {
    vec total[N][2] = {};
    for (size_t d = 0; d < wide / 2; d += 2)
#pragma GCC unroll 2
        for (int turn = 0; turn < 2; turn++) {
            fetch<N>(soon + (d + turn) * N * BLOCK);
#pragma GCC unroll 4
            for (int i = 0; i < N; i++)
                total[i][turn] = Product<bf16>::add(total[i][turn],
                                                    load<vec>(keys + i * wide * LANES + (d + turn) * BLOCK), query[d + turn]);
        }
    for (int i = 0; i < N; i++) store(scores + i * LANES, total[i][0] + total[i][1]);
}

// e^(score - top) of n scores -> words, one more if n is odd; returns their sum. Room for LANES more scores is used.
static inline float weigh(float* scores, int64_t n, float top, uint32_t* words) {
    store(scores + n, fill(-INFINITY));
    vec sums[2] = {};
    for (int64_t i = 0; i < n; i += BLOCK) {
        const vec a = exponential(load<vec>(scores + i) - top);
        const vec b = i + LANES < n ? exponential(load<vec>(scores + i + LANES) - top) : vec{};
        sums[0] += a, sums[1] += b;
        const __m512bh both = _mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
        std::memcpy(words + i / 2, &both, sizeof both);
    }
    return sum_of(sums[0] + sums[1]);
}

constexpr uint32_t ALL = 0xffffffffu;

// Slots 2 * i and 2 * i + 1 for i in [begin, end), at least one i; masks select the slots of the first and last pair.
struct Pairs {
    int64_t begin, end;
    uint32_t first, last;
};

// Words of weights times N * LANES dimensions of the values, times `share` -> out (count).
template <int N>
static inline void mix_pairs(const uint32_t* weights, const bf16* values, size_t wide, const Pairs& pairs, float share,
                             float* out, size_t count, const bf16* soon) {
    vec total[2][N] = {};
    const auto add = [&](int64_t pair, int turn, uint32_t mask) {
        fetch<N>(soon + pair * wide * 2);
#pragma GCC unroll 4
        for (int i = 0; i < N; i++) {
            const uvec words = load<uvec>(values + (pair * wide + i * LANES) * 2);
            total[turn][i] = Product<bf16>::add(total[turn][i], (vec)(words & mask), weights[pair]);
        }
    };
    const int64_t last = pairs.end - 1;
    if (pairs.begin == last) {
        add(last, 0, pairs.first & pairs.last);
    } else {
        add(pairs.begin, 0, pairs.first);
        int64_t pair = pairs.begin + 1;
        for (; pair + 1 < last; pair += 2) add(pair, 1, ALL), add(pair + 1, 0, ALL);
        if (pair < last) add(pair, 1, ALL);
        add(last, 0, pairs.last);
    }
    for (int i = 0; i < N && size_t(i * LANES) < count; i++) {
        float numbers[LANES];
        store(numbers, (total[0][i] + total[1][i]) * share);
        const size_t left = count - i * LANES;
        std::memcpy(out + i * LANES, numbers, (left < LANES ? left : LANES) * sizeof(float));
    }
}

template <> struct Cache<bf16> {
    static constexpr bool BY_ROWS = false;
    static inline size_t stride(size_t slots, size_t wide) { return slots * wide; }
    static inline void prefetch_key(const bf16* keys, int64_t slot, size_t wide) {
        const bf16* to = keys + slot / LANES * LANES * wide + slot % LANES * 2;
        for (size_t i = 0; i < wide / 2; i++) __builtin_prefetch(to + i * BLOCK, 1);
    }
    static inline void prefetch_value(const bf16* values, int64_t slot, size_t wide) {
        for (size_t i = 0; i < 2 * wide; i += BLOCK) __builtin_prefetch(values + slot / 2 * 2 * wide + i, 1);
    }
    static inline void put_key(bf16* keys, int64_t slot, const float* numbers, size_t size, size_t wide, float* spare) {
        auto* words = reinterpret_cast<uint32_t*>(spare);
        std::memset(words, 0, wide * sizeof(bf16));
        Product<bf16>::pack(numbers, words, size);
        bf16* to = keys + slot / LANES * LANES * wide + slot % LANES * 2;
        for (size_t i = 0; i < wide / 2; i++) std::memcpy(to + i * BLOCK, words + i, sizeof words[i]);
    }
    static inline void put_value(bf16* values, int64_t slot, const float* numbers, size_t size, size_t wide, float* spare) {
        std::memset(spare, 0, wide * sizeof(float));
        std::memcpy(spare, numbers, size * sizeof(float));
        bf16* to = values + slot / 2 * 2 * wide;
        const __mmask32 mine = slot % 2 ? 0xaaaaaaaau : 0x55555555u;  // another thread may be writing the other slot
        for (size_t i = 0; i < wide; i += LANES) {
            const __m512i words = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(spare + i)));
            _mm512_mask_storeu_epi16(to + 2 * i, mine, slot % 2 ? _mm512_slli_epi32(words, 16) : words);
        }
    }

    static inline void attend(const HeadInput& q, const bf16* keys, const bf16* values, const bf16* next, float* out) {
        auto* words = reinterpret_cast<uint32_t*>(q.spare);
        Product<bf16>::pack(q.query, words, q.wide);
        constexpr int AT_ONCE = 4;
        const int64_t start = q.first / LANES * LANES;
        float* scores = q.scores;
        int64_t s = start;
        for (; s + AT_ONCE * LANES <= q.last; s += AT_ONCE * LANES, scores += AT_ONCE * LANES)
            score_pairs<AT_ONCE>(words, keys + s * q.wide, q.wide, scores, values + s * q.wide);
        for (; s < q.last; s += LANES, scores += LANES)
            score_pairs<1>(words, keys + s * q.wide, q.wide, scores, values + s * q.wide);
        scores = q.scores + (q.first - start);
        const float top = scale_scores(scores, q.last - q.first, q.scale, q.cap);
        // The pair at either end may contain a slot outside the window, whose content is undefined and may be NaN.
        const int64_t begin = q.first / 2, end = (q.last + 1) / 2;
        if (q.first % 2) *--scores = -INFINITY;
        words += q.wide / 2;
        const float share = 1.0f / weigh(scores, q.last - 2 * begin, top, words);
        words -= begin;
        const Pairs pairs{begin, end, q.first % 2 ? 0xffff0000u : ALL, q.last % 2 ? 0x0000ffffu : ALL};
        size_t d = 0;
        for (; d + 4 * LANES <= q.wide; d += 4 * LANES)
            mix_pairs<4>(words, values + 2 * d, q.wide, pairs, share, out + d, q.head_size > d ? q.head_size - d : 0, next + 2 * d);
        if (d < q.wide)
            mix_pairs<2>(words, values + 2 * d, q.wide, pairs, share, out + d, q.head_size > d ? q.head_size - d : 0, next + 2 * d);
    }
};

#endif
