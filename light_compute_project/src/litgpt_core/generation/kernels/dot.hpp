// Sums of products of 8-bit activations and integer weights, 16 outputs and one group of 32 inputs at a time.
//
//     weights      8 bits: 8 times 64 bytes, signed; 4 bits: 4 times 64 bytes, two codes + 8 each (model/grid.py)
//     activations  32 signed bytes, and -8 times their sum, which removes the offset of unsigned codes
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
    int16_t offset, zero;  // -8 * sum of the codes; 0
};

enum Bits { EIGHT = 8, FOUR = 4 };

template <Bits BITS> constexpr size_t CODE_BYTES = STRIP * GROUP * size_t(BITS) / 8;  // of a strip and a group

static inline int32_t four_bytes(const int8_t* from) {
    int32_t word;
    std::memcpy(&word, from, sizeof word);
    return word;
}

// Dot<BITS>: `begin` with a group of activations; `add` for every 4 (8 bits) or 8 (4 bits) inputs of it, with `weights` of
// LANES outputs; `finish` gives their sums over the group.
template <Bits BITS> struct Dot;

#if !defined(LIGHT_COMPUTE_PORTABLE_DOT) && (defined(__AVX512VNNI__) || (defined(__AVXVNNI__) && !defined(__AVX512F__)))

#if defined(__AVX512VNNI__)
typedef __m512i Integers;
static inline Integers spread(int32_t word) { return _mm512_set1_epi32(word); }
static inline Integers four_products(Integers sums, Integers weights, Integers numbers) {
    return _mm512_dpbusd_epi32(sums, weights, numbers);
}
#else
typedef __m256i Integers;
static inline Integers spread(int32_t word) { return _mm256_set1_epi32(word); }
static inline Integers four_products(Integers sums, Integers weights, Integers numbers) {
    return _mm256_dpbusd_avx_epi32(sums, weights, numbers);
}
#endif

template <> struct Dot<FOUR> {
    struct Weights {
        Integers first, second;
    };
    typedef Integers Sums;
    static inline Weights weights(const uint8_t* codes) {
        const Integers bytes = load<Integers>(codes), low = spread(0x0f0f0f0f);
        return {bytes & low, (Integers)((uvec)bytes >> 4) & low};
    }
    static inline Sums begin(const Group& x) { return spread(x.offset); }
    static inline void add(Sums& sums, const Weights& w, const int8_t* numbers) {
        sums = four_products(sums, w.first, spread(four_bytes(numbers)));
        sums = four_products(sums, w.second, spread(four_bytes(numbers + 4)));
    }
    static inline ivec finish(const Sums& sums, const Group&) { return (ivec)sums; }
};

template <> struct Dot<EIGHT> {
    typedef Integers Weights;
    typedef Integers Sums;
    static inline Weights weights(const uint8_t* codes) { return load<Integers>(codes) ^ spread(0x80808080); }  // + 128
    static inline Sums begin(const Group& x) { return spread(16 * x.offset); }
    static inline void add(Sums& sums, const Weights& w, const int8_t* numbers) {
        sums = four_products(sums, w, spread(four_bytes(numbers)));
    }
    static inline ivec finish(const Sums& sums, const Group&) { return (ivec)sums; }
};

#elif !defined(LIGHT_COMPUTE_PORTABLE_DOT) && defined(__AVX2__) && !defined(__AVX512F__)

// `maddubs` multiplies unsigned by signed bytes and adds two products in 16 bits: 2 * 15 * 127 of 4-bit codes, eight times
// before it could overflow; 2 * 127 * 127 of 8-bit ones, once. The offset fits too: 8 * 32 * 127.
typedef __m256i Integers;
static inline Integers spread(int32_t word) { return _mm256_set1_epi32(word); }
static inline Integers pairs_of(Integers sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }
// GCC would first compute many products, spill them to memory and add them up later: a third slower.
static inline Integers added_now(Integers sums) {
    asm("" : "+x"(sums));
    return sums;
}

template <> struct Dot<FOUR> {
    struct Weights {
        Integers first, second;
    };
    typedef Integers Sums;  // of 16 bits; the offset is in every second one
    static inline Weights weights(const uint8_t* codes) {
        const Integers bytes = load<Integers>(codes), low = spread(0x0f0f0f0f);
        return {_mm256_and_si256(bytes, low), _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low)};
    }
    static inline Sums begin(const Group& x) { return spread(load<int32_t>(&x.offset)); }
    static inline void add(Sums& sums, const Weights& w, const int8_t* numbers) {
        const Integers one = _mm256_maddubs_epi16(w.first, spread(four_bytes(numbers)));
        const Integers two = _mm256_maddubs_epi16(w.second, spread(four_bytes(numbers + 4)));
        sums = added_now(_mm256_add_epi16(added_now(_mm256_add_epi16(sums, one)), two));
    }
    static inline ivec finish(const Sums& sums, const Group&) { return (ivec)pairs_of(sums); }
};

template <> struct Dot<EIGHT> {
    struct Weights {
        Integers sizes, signs;
    };
    typedef Integers Sums;
    static inline Weights weights(const uint8_t* codes) {
        const Integers bytes = load<Integers>(codes);
        return {_mm256_abs_epi8(bytes), bytes};
    }
    static inline Sums begin(const Group&) { return _mm256_setzero_si256(); }
    static inline void add(Sums& sums, const Weights& w, const int8_t* numbers) {
        const Integers pairs = _mm256_maddubs_epi16(w.sizes, _mm256_sign_epi8(spread(four_bytes(numbers)), w.signs));
        sums = added_now(_mm256_add_epi32(sums, pairs_of(pairs)));
    }
    static inline ivec finish(const Sums& sums, const Group&) { return (ivec)sums; }
};

#else

template <Bits BITS> struct Dot {
    typedef uvec Weights;  // four bytes of each output
    typedef ivec Sums;
    static inline Weights weights(const uint8_t* codes) { return load<uvec>(codes); }
    static inline Sums begin(const Group& x) { return ivec{} + (BITS == FOUR ? x.offset : 0); }
    static inline void add(Sums& sums, Weights w, const int8_t* numbers) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            if (BITS == EIGHT)
                sums += ((ivec)(w << (24 - 8 * j)) >> 24) * numbers[j];
            else
                sums += (ivec)(w >> 8 * j & 15) * numbers[j] + (ivec)(w >> (8 * j + 4) & 15) * numbers[4 + j];
    }
    static inline ivec finish(const Sums& sums, const Group&) { return sums; }
};

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
