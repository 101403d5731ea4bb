// Keys and values in 8 bits. Each slot of one group of one layer is a row: `wide` codes, then their scale in fp32.
//
//     put      scale = largest size / 127, code = nearest whole number to number / scale, ties to even
//     attend   query and weights stay fp32; a number is code * scale, the scale is multiplied in once per slot
//
// The slow implementation that tests compare with is Int8KVCache (model/kv_cache.py).
#pragma once

#include "attention.hpp"
#include "dot.hpp"

template <> struct Cache<int8_t> {
    typedef int8_t bytes __attribute__((vector_size(LANES)));
    static constexpr size_t SCALE = sizeof(float);
    static constexpr bool BY_ROWS = false;

    static inline size_t stride(size_t slots, size_t wide) { return slots * (wide + SCALE); }
    static inline vec codes_at(const int8_t* from) {
#if defined(__AVX512F__)
        return (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#elif defined(__AVX2__)
        return (vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
        return __builtin_convertvector(__builtin_convertvector(load<bytes>(from), ivec), vec);
#endif
    }
    static inline float scale_of(const int8_t* row, size_t wide) {
        float scale;
        std::memcpy(&scale, row + wide, SCALE);
        return scale;
    }

    static inline void put(int8_t* to, int64_t slot, const float* numbers, size_t size, size_t wide, float* spare) {
        int8_t* row = to + slot * (wide + SCALE);
        std::memset(spare, 0, wide * sizeof(float));
        std::memcpy(spare, numbers, size * sizeof(float));
        ivec largest{};  // bits of the sizes, which are in the order of the numbers; those of a NaN are the largest
        for (size_t i = 0; i < wide; i += LANES) {
            const ivec magnitude = load<ivec>(spare + i) & 0x7fffffff;
            largest = magnitude > largest ? magnitude : largest;
        }
        int32_t bits = 0;
        for (int i = 0; i < LANES; i++) bits = largest[i] > bits ? largest[i] : bits;
        float top;
        std::memcpy(&top, &bits, sizeof top);
        const float scale = top / 127.0f, inverse = top == 0 ? 0.0f : 127.0f / top;
        for (size_t i = 0; i < wide; i += LANES) {
            const vec shifted = load<vec>(spare + i) * inverse + 12582912.0f;  // 1.5 * 2^23: rounds
            const bytes codes = __builtin_convertvector((ivec)shifted - 0x4B400000, bytes);
            std::memcpy(row + i, &codes, sizeof codes);
        }
        std::memcpy(row + wide, &scale, SCALE);
    }
    static inline void prefetch_key(const int8_t*, int64_t, size_t) {}
    static inline void prefetch_value(const int8_t*, int64_t, size_t) {}
    static inline void put_key(int8_t* keys, int64_t slot, const float* numbers, size_t size, size_t wide, float* spare) {
        put(keys, slot, numbers, size, wide, spare);
    }
    static inline void put_value(int8_t* values, int64_t slot, const float* numbers, size_t size, size_t wide, float* spare) {
        put(values, slot, numbers, size, wide, spare);
    }

    static inline void attend(const HeadInput& q, const int8_t* keys, const int8_t* values, const int8_t*, float* out) {
        score(q, keys);
        softmax(q.scores, q.last - q.first, q.scale, q.cap);
        mix(q, values, out);
    }

  private:
    // As `score` of attention.hpp: up to LANES - 1 numbers after the last slot are written too, and ignored.
    static inline void score(const HeadInput& q, const int8_t* keys) {
        const size_t apart = q.wide + SCALE;
        for (int64_t s = q.first; s < q.last; s += LANES) {
            const int8_t* rows = keys + s * apart;
            vec total[LANES] = {};
            for (size_t d = 0; d < q.wide; d += LANES) {
                const vec query = load<vec>(q.query + d);
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++) total[i] += query * codes_at(rows + i * apart + d);
            }
            vec scales;
            for (int i = 0; i < LANES; i++) scales[i] = scale_of(rows + i * apart, q.wide);
            store(q.scores + s - q.first, sums_of(total) * scales);
        }
    }

    static inline void mix(const HeadInput& q, const int8_t* values, float* out) {
        constexpr int AT_ONCE = 4;
        const size_t apart = q.wide + SCALE;
        for (size_t d = 0; d < q.wide; d += AT_ONCE * LANES) {
            vec total[AT_ONCE] = {};
            const int vectors = int((q.wide - d) / LANES < AT_ONCE ? (q.wide - d) / LANES : AT_ONCE);
            for (int64_t s = q.first; s < q.last; s++) {
                const int8_t* row = values + s * apart;
                const float weight = q.scores[s - q.first] * scale_of(row, q.wide);
                if (vectors == AT_ONCE) {
#pragma GCC unroll 4
                    for (int i = 0; i < AT_ONCE; i++) total[i] += weight * codes_at(row + d + i * LANES);
                } else {
                    for (int i = 0; i < vectors; i++) total[i] += weight * codes_at(row + d + i * LANES);
                }
            }
            for (int i = 0; i < vectors; i++)
                for (int lane = 0; lane < LANES && d + i * LANES + lane < q.head_size; lane++)
                    out[d + i * LANES + lane] = total[i][lane];
        }
    }
};
