// From the logits of the next token to a token, as `sample` of sampling.py does; the tests compare the two.
//
//     logits -> / temperature -> top_k -> top_p -> min_p -> the first token, in descending order of probability, whose
//                                                           cumulative weight exceeds `uniform` times the total
//
// Every function handles one sequence. Weights are relative to the most probable token's; their sums are double.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "model.hpp"
#include "vector.hpp"

constexpr double MIN_TEMPERATURE = 1e-6;  // below it decoding is greedy
constexpr double MAX_TEMPERATURE = 1e30;  // higher temperatures are clamped to the range of float
constexpr size_t FIRST_CANDIDATES = 512;  // for top_p, this many tokens are examined before the vocabulary is sorted
constexpr float NEGLIGIBLE = -87.0f;      // tokens e^-87 times as probable as another one are never sampled
constexpr int64_t NON_FINITE = -1;        // instead of a token: a logit is NaN or +infinity, or all are -infinity

struct Candidate {
    float value;  // scaled logit, <= 0
    int64_t token;
};

static inline bool more_probable(const Candidate& a, const Candidate& b) {
    return a.value > b.value || (a.value == b.value && a.token < b.token);
}

// The largest of `size` numbers; NaN if one is NaN or +infinity, or if all are -infinity.
static inline float top_of(const float* logits, size_t size) {
    vec tops = fill(-INFINITY);
    ivec fine = ~ivec{};
    size_t i = 0;
    for (; i + LANES <= size; i += LANES) {
        const vec value = load<vec>(logits + i);
        fine &= value < INFINITY;  // false for NaN too
        tops = larger(tops, value);
    }
    float top = largest_of(tops);
    bool good = true;
    for (int lane = 0; lane < LANES; lane++) good &= fine[lane] != 0;
    for (; i < size; i++) {
        good &= logits[i] < INFINITY;
        top = logits[i] > top ? logits[i] : top;
    }
    return good && top > -INFINITY ? top : NAN;
}

// LANES scaled logits from `i` on, -infinity behind the last.
static inline vec scaled_at(const float* logits, size_t size, size_t i, float top, float temperature) {
    if (i + LANES <= size) return (load<vec>(logits + i) - top) / temperature;
    float edge[LANES];
    for (int lane = 0; lane < LANES; lane++) edge[lane] = i + lane < size ? logits[i + lane] : -INFINITY;
    return (load<vec>(edge) - top) / temperature;
}

static inline vec weight_of(vec scaled, float least) {
    return scaled < (least > NEGLIGIBLE ? least : NEGLIGIBLE) ? vec{} : exponential(scaled);
}

static inline double sum_in_double(vec weights) {
    double sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += double(weights[lane]);
    return sum;
}

// In the order of the vocabulary: the first token at which the sum of weights exceeds `uniform` times the total.
static inline int64_t sample_in_order(const float* logits, size_t size, float top, float temperature, float least,
                                    double uniform) {
    constexpr size_t CHUNK = 16 * LANES;
    static thread_local std::vector<double> sums;
    sums.clear();
    double total = 0;
    for (size_t begin = 0; begin < size; begin += CHUNK) {
        vec sum{};
        for (size_t i = begin; i < size && i < begin + CHUNK; i += LANES)
            sum += weight_of(scaled_at(logits, size, i, top, temperature), least);
        sums.push_back(sum_in_double(sum));
        total += sums.back();
    }
    const double mark = uniform * total;
    double reached = 0;
    size_t chunk = 0;
    for (; chunk + 1 < sums.size() && reached + sums[chunk] <= mark; chunk++) reached += sums[chunk];
    int64_t last = -1;  // of the chunk: rounding may leave the sum just below the threshold
    for (size_t i = chunk * CHUNK; i < size && i < (chunk + 1) * CHUNK; i += LANES) {
        const vec weights = weight_of(scaled_at(logits, size, i, top, temperature), least);
        for (int lane = 0; lane < LANES && i + lane < size; lane++) {
            if (weights[lane] == 0) continue;
            reached += double(weights[lane]);
            last = int64_t(i + lane);
            if (reached > mark) return last;
        }
    }
    if (last >= 0) return last;
    return std::max_element(logits, logits + size) - logits;
}

// The `count` most probable tokens, in no particular order; of equal ones those with the lowest ids.
static inline void collect(const float* logits, size_t size, float top, float temperature, size_t count,
                           std::vector<Candidate>& found) {
    found.clear();
    float bar = -INFINITY;  // the value that further tokens must exceed once `count` were found
    bool enough = false;
    const auto prune = [&] {
        std::nth_element(found.begin(), found.begin() + int64_t(count) - 1, found.end(), more_probable);
        found.resize(count);
        bar = found[count - 1].value;
        enough = true;
    };
    for (size_t i = 0; i < size; i += LANES) {
        const vec values = scaled_at(logits, size, i, top, temperature);
        if (enough && !(largest_of(values) > bar)) continue;
        for (int lane = 0; lane < LANES && i + lane < size; lane++)
            if (!enough || values[lane] > bar) found.push_back({values[lane], int64_t(i + lane)});
        if (found.size() >= 2 * count + LANES) prune();
    }
    if (found.size() > count) prune();
}

static inline double weight_of(float scaled) { return scaled < NEGLIGIBLE ? 0.0 : double(exponential(fill(scaled))[0]); }

// Samples a token from logits (size), or returns NON_FINITE.
static inline int64_t sample(const float* logits, size_t size, const Sampling& settings, double uniform) {
    const float top = top_of(logits, size);
    if (!(top == top)) return NON_FINITE;
    if (settings.temperature < MIN_TEMPERATURE) {
        size_t token = 0;
        while (logits[token] != top) token++;
        return int64_t(token);
    }
    const float temperature = float(std::min(settings.temperature, MAX_TEMPERATURE));
    const float least = settings.min_p > 0 ? float(std::log(settings.min_p)) : -INFINITY;
    const bool few = settings.top_k > 0 && size_t(settings.top_k) < size;
    if (!few && settings.top_p >= 1) return sample_in_order(logits, size, top, temperature, least, uniform);

    static thread_local std::vector<Candidate> found;
    static thread_local std::vector<double> reached;
    const auto select = [&](size_t count) {  // returns the sum of their weights
        collect(logits, size, top, temperature, count, found);
        std::sort(found.begin(), found.end(), more_probable);
        reached.clear();
        double sum = 0;
        for (const Candidate& one : found) reached.push_back(sum += weight_of(one.value));
        return sum;
    };
    double total;
    if (few) {
        total = select(size_t(settings.top_k));
    } else {
        total = 0;
        for (size_t i = 0; i < size; i += LANES)
            total += sum_in_double(weight_of(scaled_at(logits, size, i, top, temperature), -INFINITY));
        if (size <= 2 * FIRST_CANDIDATES || select(FIRST_CANDIDATES) <= settings.top_p * total) select(size);
    }
    size_t kept = 1;  // the most probable token always stays
    while (kept < found.size() && (settings.top_p >= 1 || reached[kept - 1] < settings.top_p * total) &&
           found[kept].value >= least)
        kept++;
    const double mark = uniform * reached[kept - 1];
    const auto place = std::upper_bound(reached.begin(), reached.begin() + int64_t(kept) - 1, mark);
    return found[size_t(place - reached.begin())].token;
}
