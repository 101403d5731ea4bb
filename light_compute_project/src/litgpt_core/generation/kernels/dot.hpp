// Sums of products of 8-bit activations and integer weights, 16 outputs and one group of 32 inputs at a time.
//
//     weights      8 bits: 8 times 64 bytes, signed; 4 bits: 4 times 64 bytes, two codes + 8 each (model/grid.py)
//     activations  32 signed bytes, and their sum, which removes the offset that unsigned codes have
//
// The lanes of a vector are outputs; four bytes of it belong to one output, and one instruction adds up their products.
// All sums are exact integers, so every processor gives the same. In this order: AVX512-VNNI, AVX-VNNI, AVX2, portable;
// -DLIGHT_COMPUTE_PORTABLE_DOT chooses the last.
#pragma once

#include "vector.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

constexpr size_t GROUP = 32, STRIP = 16;
constexpr int HALVES = int(STRIP) / LANES;  // vectors of floats that hold one number per output of a strip

// One group of activations: a number is code * scale.
struct Group {
    int8_t codes[GROUP];
    float scale;
    int32_t sum;  // of the codes
};

enum Bits { EIGHT = 8, FOUR = 4 };

template <Bits BITS> constexpr size_t CODE_BYTES = STRIP * GROUP * size_t(BITS) / 8;  // of a strip and a group

static inline int32_t four_bytes(const int8_t* from) {
    int32_t word;
    std::memcpy(&word, from, sizeof word);
    return word;
}

// Dot<BITS, M>::sums: for M groups of activations, `stride` groups apart, the sums of one vector of LANES outputs, half
// `half` of the strip.
#if defined(__AVX512VNNI__) && !defined(LIGHT_COMPUTE_PORTABLE_DOT)

template <Bits BITS, int M> static inline void dot(const uint8_t* codes, int, const Group* x, size_t stride, ivec* sums) {
    __m512i total[M];
    const __m512i low = _mm512_set1_epi8(15), flip = _mm512_set1_epi8(char(0x80));
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) total[m] = _mm512_set1_epi32(x[m * stride].sum * (BITS == FOUR ? -8 : -128));
#pragma GCC unroll 8
    for (int c = 0; c < BITS; c++) {
        const __m512i bytes = _mm512_loadu_si512(codes + c * 64);
        if constexpr (BITS == FOUR) {
            const __m512i first = _mm512_and_si512(bytes, low), second = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low);
#pragma GCC unroll 16
            for (int m = 0; m < M; m++) {
                const int8_t* numbers = x[m * stride].codes + 8 * c;
                total[m] = _mm512_dpbusd_epi32(total[m], first, _mm512_set1_epi32(four_bytes(numbers)));
                total[m] = _mm512_dpbusd_epi32(total[m], second, _mm512_set1_epi32(four_bytes(numbers + 4)));
            }
        } else {
            const __m512i weights = _mm512_xor_si512(bytes, flip);  // + 128: unsigned
#pragma GCC unroll 16
            for (int m = 0; m < M; m++)
                total[m] = _mm512_dpbusd_epi32(total[m], weights, _mm512_set1_epi32(four_bytes(x[m * stride].codes + 4 * c)));
        }
    }
    for (int m = 0; m < M; m++) sums[m] = (ivec)total[m];
}

#elif defined(__AVXVNNI__) && !defined(__AVX512F__) && !defined(LIGHT_COMPUTE_PORTABLE_DOT)

template <Bits BITS, int M>
static inline void dot(const uint8_t* codes, int half, const Group* x, size_t stride, ivec* sums) {
    __m256i total[M];
    const __m256i low = _mm256_set1_epi8(15), flip = _mm256_set1_epi8(char(0x80));
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) total[m] = _mm256_set1_epi32(x[m * stride].sum * (BITS == FOUR ? -8 : -128));
#pragma GCC unroll 8
    for (int c = 0; c < BITS; c++) {
        const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + c * 64 + half * 32));
        if constexpr (BITS == FOUR) {
            const __m256i first = _mm256_and_si256(bytes, low), second = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low);
#pragma GCC unroll 16
            for (int m = 0; m < M; m++) {
                const int8_t* numbers = x[m * stride].codes + 8 * c;
                total[m] = _mm256_dpbusd_avx_epi32(total[m], first, _mm256_set1_epi32(four_bytes(numbers)));
                total[m] = _mm256_dpbusd_avx_epi32(total[m], second, _mm256_set1_epi32(four_bytes(numbers + 4)));
            }
        } else {
            const __m256i weights = _mm256_xor_si256(bytes, flip);
#pragma GCC unroll 16
            for (int m = 0; m < M; m++)
                total[m] =
                    _mm256_dpbusd_avx_epi32(total[m], weights, _mm256_set1_epi32(four_bytes(x[m * stride].codes + 4 * c)));
        }
    }
    for (int m = 0; m < M; m++) sums[m] = (ivec)total[m];
}

#elif defined(__AVX2__) && !defined(__AVX512F__) && !defined(LIGHT_COMPUTE_PORTABLE_DOT)

// `maddubs` adds two products in 16 bits: 2 * 15 * 127 of 4-bit codes, eight times before it could overflow; 2 * 127 *
// 127 of 8-bit ones, once.
template <Bits BITS, int M>
static inline void dot(const uint8_t* codes, int half, const Group* x, size_t stride, ivec* sums) {
    __m256i total[M];
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) total[m] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int c = 0; c < BITS; c++) {
        const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + c * 64 + half * 32));
        if constexpr (BITS == FOUR) {
            const __m256i first = _mm256_and_si256(bytes, low), second = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low);
#pragma GCC unroll 16
            for (int m = 0; m < M; m++) {
                const int8_t* numbers = x[m * stride].codes + 8 * c;
                const __m256i one = _mm256_maddubs_epi16(first, _mm256_set1_epi32(four_bytes(numbers)));
                const __m256i two = _mm256_maddubs_epi16(second, _mm256_set1_epi32(four_bytes(numbers + 4)));
                total[m] = _mm256_add_epi16(total[m], _mm256_add_epi16(one, two));
            }
        } else {
            const __m256i sizes = _mm256_abs_epi8(bytes);
#pragma GCC unroll 16
            for (int m = 0; m < M; m++) {
                const __m256i numbers = _mm256_set1_epi32(four_bytes(x[m * stride].codes + 4 * c));
                const __m256i pairs = _mm256_maddubs_epi16(sizes, _mm256_sign_epi8(numbers, bytes));
                total[m] = _mm256_add_epi32(total[m], _mm256_madd_epi16(pairs, ones));
            }
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) {
        if (BITS == FOUR)
            total[m] = _mm256_sub_epi32(_mm256_madd_epi16(total[m], ones), _mm256_set1_epi32(8 * x[m * stride].sum));
        sums[m] = (ivec)total[m];
    }
}

#else

template <Bits BITS, int M>
static inline void dot(const uint8_t* codes, int half, const Group* x, size_t stride, ivec* sums) {
    for (int m = 0; m < M; m++) {
        const int8_t* numbers = x[m * stride].codes;
        int32_t total[LANES] = {};
        for (int c = 0; c < BITS; c++)
            for (int o = 0; o < LANES; o++)
                for (int j = 0; j < 4; j++) {
                    const uint8_t byte = codes[c * 64 + (half * LANES + o) * 4 + j];
                    if (BITS == EIGHT)
                        total[o] += int8_t(byte) * numbers[4 * c + j];
                    else
                        total[o] += ((byte & 15) - 8) * numbers[8 * c + j] + ((byte >> 4) - 8) * numbers[8 * c + 4 + j];
                }
        sums[m] = load<ivec>(reinterpret_cast<const float*>(total));
    }
}

#endif

// float16 -> fp32, exactly.
static inline float half_to_float(uint16_t half) {
#if defined(__F16C__)
    return _cvtsh_ss(half);
#else
    const uint32_t sign = uint32_t(half & 0x8000u) << 16, rest = half & 0x7fffu;
    uint32_t bits = sign | (rest << 13);
    float value;
    if (rest >= 0x7c00u) {
        bits |= 0x7f800000u;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    }
    std::memcpy(&value, &bits, sizeof value);
    return value * 5.192296858534828e33f;  // 2^112: the exponents' difference; subnormals become normal
#endif
}

static inline vec halves_to_floats(const uint16_t* from) {
#if defined(__AVX512F__)
    return (vec)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__F16C__)
    return (vec)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
    vec values;
    for (int i = 0; i < LANES; i++) values[i] = half_to_float(from[i]);
    return values;
#endif
}
