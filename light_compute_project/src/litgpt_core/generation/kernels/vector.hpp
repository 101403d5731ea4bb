// Vectors of floats in the compiler's own vector types, so that one source serves AVX-512, AVX2 and NEON; intrinsics only where
// compilers miss an instruction. Not here: threads, shapes, anything about a model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef uint32_t uvec __attribute__((vector_size(LANES * 4)));

template <class V> static inline V load(const void* from) {  // no alignment needed
    V value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

static inline void store(float* to, vec value) { std::memcpy(to, &value, sizeof value); }

// The same value, which the compiler then loads once for several uses: reading it from memory for each of them would take
// as many loads as multiplications, which is more than a core can do together with the loads of weights.
static inline vec in_register(vec value) {
#if defined(__x86_64__) && defined(__AVX2__)
    asm("" : "+v"(value));
#endif
    return value;
}

static inline vec fill(float value) { return value - vec{}; }

// The first `count` lanes of `value`, the others of `rest`.
static inline vec first_lanes(vec value, size_t count, vec rest) {
#if defined(__AVX512F__)
    const ivec lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
    const ivec lane = {0, 1, 2, 3, 4, 5, 6, 7};
#endif
    return lane < int32_t(count) ? value : rest;
}

// `count` numbers, and zeros up to `end`; both are multiples of LANES.
static inline void copy_row(const float* from, size_t count, float* to, size_t end) {
    for (size_t i = 0; i < count; i += LANES) store(to + i, load<vec>(from + i));
    for (size_t i = count; i < end; i += LANES) store(to + i, vec{});
}

// Below: the sum of all lanes of each of LANES accumulators, in their order (`sums_of`). A tree: each level adds halves
// of neighbours, which costs 3 * (LANES - 1) instructions instead of LANES horizontal sums.
#if defined(__clang__)
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, ivec{__VA_ARGS__})
#endif

#if defined(__AVX512F__)
static inline vec add_pairs_1(vec a, vec b) {
    return PICK(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
           PICK(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}
static inline vec add_pairs_2(vec a, vec b) {
    return PICK(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
           PICK(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
}
static inline vec add_pairs_4(vec a, vec b) {
    return PICK(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
           PICK(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
}
static inline vec add_pairs_8(vec a, vec b) {
    return PICK(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
           PICK(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
static inline vec evens(vec a, vec b) { return PICK(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30); }
static inline vec odds(vec a, vec b) { return PICK(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31); }
static inline vec alternate_low(vec a, vec b) { return PICK(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23); }
static inline vec alternate_high(vec a, vec b) {
    return PICK(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#else
static inline vec add_pairs_1(vec a, vec b) {
    return PICK(a, b, 0, 8, 2, 10, 4, 12, 6, 14) + PICK(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
}
static inline vec add_pairs_2(vec a, vec b) {
    return PICK(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + PICK(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
}
static inline vec add_pairs_4(vec a, vec b) {
    return PICK(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + PICK(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
}
static inline vec evens(vec a, vec b) { return PICK(a, b, 0, 2, 4, 6, 8, 10, 12, 14); }
static inline vec odds(vec a, vec b) { return PICK(a, b, 1, 3, 5, 7, 9, 11, 13, 15); }
static inline vec alternate_low(vec a, vec b) { return PICK(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
static inline vec alternate_high(vec a, vec b) { return PICK(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
#endif

static inline vec sums_of(const vec* a) {
#if defined(__AVX512F__)
    vec eight[8], four[4];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) eight[i] = add_pairs_1(a[2 * i], a[2 * i + 1]);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) four[i] = add_pairs_2(eight[2 * i], eight[2 * i + 1]);
    return add_pairs_8(add_pairs_4(four[0], four[1]), add_pairs_4(four[2], four[3]));
#else
    vec four[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) four[i] = add_pairs_1(a[2 * i], a[2 * i + 1]);
    return add_pairs_4(add_pairs_2(four[0], four[1]), add_pairs_2(four[2], four[3]));
#endif
}

// Each lane and the one `LANES / 2`, ... away from it.
#if defined(__AVX512F__)
static inline vec halves_swapped(vec a) { return PICK(a, a, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7); }
static inline vec quarters_swapped(vec a) { return PICK(a, a, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11); }
static inline vec pairs_swapped(vec a) { return PICK(a, a, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13); }
static inline vec neighbours_swapped(vec a) { return PICK(a, a, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14); }
#else
static inline vec halves_swapped(vec a) { return a; }
static inline vec quarters_swapped(vec a) { return PICK(a, a, 4, 5, 6, 7, 0, 1, 2, 3); }
static inline vec pairs_swapped(vec a) { return PICK(a, a, 2, 3, 0, 1, 6, 7, 4, 5); }
static inline vec neighbours_swapped(vec a) { return PICK(a, a, 1, 0, 3, 2, 5, 4, 7, 6); }
#endif

static inline float sum_of(vec a) {
    if (LANES == 16) a += halves_swapped(a);
    a += quarters_swapped(a);
    a += pairs_swapped(a);
    return a[0] + a[1];
}

// A NaN in `a` stays, so that a broken model answers NaN instead of something. GCC compares and blends instead of using the one
// instruction that does this.
#if defined(__AVX512F__)
static inline vec smaller(vec a, vec b) { return (vec)_mm512_min_ps((__m512)b, (__m512)a); }
static inline vec larger(vec a, vec b) { return (vec)_mm512_max_ps((__m512)b, (__m512)a); }
#elif defined(__AVX2__)
static inline vec smaller(vec a, vec b) { return (vec)_mm256_min_ps((__m256)b, (__m256)a); }
static inline vec larger(vec a, vec b) { return (vec)_mm256_max_ps((__m256)b, (__m256)a); }
#else
static inline vec smaller(vec a, vec b) { return b < a ? b : a; }
static inline vec larger(vec a, vec b) { return b > a ? b : a; }
#endif

static inline vec absolute(vec a) { return (vec)((ivec)a & 0x7FFFFFFF); }

static inline float largest_of(vec a) {
    a = larger(a, halves_swapped(a));
    a = larger(a, quarters_swapped(a));
    a = larger(a, pairs_swapped(a));
    return larger(a, neighbours_swapped(a))[0];
}

// e^x to about 1e-7 of its value, for x <= 88: 2^n times the Taylor series of e^r, |r| <= ln(2) / 2, up to r^7.
static inline vec bounded_exponential(vec x) {
    x = larger(x, fill(-87.0f));
    const vec magic = fill(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number, which its low bits then hold
    const vec shifted = x * 1.44269504f + magic;
    const vec whole = shifted - magic;
    const vec r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;  // ln(2) in two parts
    vec sum = fill(1.0f / 5040);
    sum = sum * r + 1.0f / 720;
    sum = sum * r + 1.0f / 120;
    sum = sum * r + 1.0f / 24;
    sum = sum * r + 1.0f / 6;
    sum = sum * r + 0.5f;
    sum = sum * r + 1.0f;
    sum = sum * r + 1.0f;
    const ivec power = ((ivec)shifted - 0x4B400000 + 127) << 23;
    return sum * (vec)power;
}

static inline vec exponential(vec x) { return bounded_exponential(smaller(x, fill(88.0f))); }

static inline vec hyperbolic_tangent(vec x) { return 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f); }

// Abramowitz & Stegun 7.1.26: wrong by at most 1.5e-7.
static inline vec error_function(vec x) {
    const vec size = absolute(x);
    const vec t = 1.0f / (1.0f + 0.3275911f * size);
    vec sum = fill(1.061405429f);
    sum = sum * t - 1.453152027f;
    sum = sum * t + 1.421413741f;
    sum = sum * t - 0.284496736f;
    sum = sum * t + 0.254829592f;
    const vec value = 1.0f - sum * t * bounded_exponential(-size * size);
    return x < 0 ? -value : value;
}
