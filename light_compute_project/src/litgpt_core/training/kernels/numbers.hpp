// What a 32-bit word of a packed operand holds: a float32 number, or two consecutive numbers of a sum rounded to bfloat16, which
// AVX512-BF16 and AMX multiply and add up in float32. Everything outside products stays float32.
#pragma once

#include "vector.hpp"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

constexpr size_t MR = LANES == 16 ? 12 : 6, NR = 2 * LANES;  // MR x NR sums fill most of the vector registers

struct Single {
    using InRegisters = Single;
    struct Registers {};
    static constexpr size_t PER_WORD = 1, ROWS = MR;
    static vec spread(const float* word) { return fill(*word); }
    static vec add_product(vec sum, vec a, vec b) { return sum + a * b; }
    // LANES sums side by side: a word for each, of the number of this step.
    static vec beside(vec first, vec) { return first; }
};

#if defined(__AVX512BF16__)
struct Pairs {
    using InRegisters = Pairs;
    struct Registers {};
    static constexpr size_t PER_WORD = 2, ROWS = MR;
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

#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#include <sys/syscall.h>
#include <unistd.h>

// AMX: a tile register holds 16 rows of 16 words, and one instruction multiplies two of them. Denormal numbers count as zero.
// Attention, whose squares are cut by the diagonal, is computed in float32: Intel's processors multiply pairs half as fast.
struct Tiles : Pairs {
    using InRegisters = Single;
    static constexpr size_t ROWS = 2 * LANES;  // of sums: 2 x 2 tiles

    // Linux lets a process use tile registers after it has asked. False: this system does not.
    static bool allowed() {
        constexpr long ASK = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
        static const bool yes = syscall(SYS_arch_prctl, ASK, TILE_DATA) == 0;
        return yes;
    }

    // A thread's tile registers, all of 16 rows of 64 bytes, for as long as this lives.
    class Registers {
      public:
        Registers() {
            struct alignas(64) {
                uint8_t palette = 1, start_row = 0, reserved[14] = {};
                uint16_t bytes[16] = {};
                uint8_t rows[16] = {};
            } shapes;
            for (int i = 0; i < 8; i++) shapes.bytes[i] = 64, shapes.rows[i] = 16;
            asm volatile("" ::"m"(shapes) : "memory");
            _tile_loadconfig(&shapes);
        }
        ~Registers() { _tile_release(); }
        Registers(const Registers&) = delete;
    };

    // sums = ROWS rows at `a`, in squares of 16 words, times `words` rows of NR words at `b`.
    static void multiply(const float* a, const float* b, size_t words, vec (&sums)[ROWS][2]) {
        constexpr size_t SQUARE = LANES * LANES, A_ROW = LANES * sizeof(float), B_ROW = NR * sizeof(float);
        asm volatile("" ::: "memory");  // the intrinsics do not say that they read and write memory
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (size_t k = 0; k < words; k += LANES, a += 2 * SQUARE, b += LANES * NR) {
            _tile_loadd(4, a, A_ROW);
            _tile_loadd(6, b, B_ROW);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, b + LANES, B_ROW);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, a + SQUARE, A_ROW);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, &sums[0][0], B_ROW);
        _tile_stored(1, &sums[0][1], B_ROW);
        _tile_stored(2, &sums[LANES][0], B_ROW);
        _tile_stored(3, &sums[LANES][1], B_ROW);
        asm volatile("" ::: "memory");
    }
};
#endif

// Whether operands are packed for tile registers: rows in squares of LANES words, not side by side.
template <class N> constexpr bool IN_SQUARES = N::ROWS > MR;
