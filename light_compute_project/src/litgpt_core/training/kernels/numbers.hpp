// What a 32-bit word of a packed operand holds: a float32 number, or two consecutive numbers of a sum rounded to bfloat16, which
// AVX512-BF16 multiplies and adds up in float32, twice as many at a time. Everything outside products stays float32.
#pragma once

#include "vector.hpp"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

struct Single {
    static constexpr size_t PER_WORD = 1;
    static vec spread(const float* word) { return fill(*word); }
    static vec add_product(vec sum, vec a, vec b) { return sum + a * b; }
    // LANES sums side by side: a word for each, of the number of this step.
    static vec beside(vec first, vec) { return first; }
};

#if defined(__AVX512BF16__)
struct Pairs {
    static constexpr size_t PER_WORD = 2;
    static vec spread(const float* word) {
        int32_t bits;
        std::memcpy(&bits, word, sizeof bits);
        return (vec)_mm512_set1_epi32(bits);
    }
    static vec add_product(vec sum, vec a, vec b) { return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b); }
    static vec beside(vec first, vec second) {
        const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)first));
        const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)second));
        return (vec)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
    }
    // Consecutive numbers of one sum -> consecutive words.
    static vec along(vec first, vec second) { return (vec)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first); }
};
#endif
