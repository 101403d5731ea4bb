// From the logits of the next token to a token: what `draw` of sampling.py says, which the tests compare with.
//
//     logits -> / temperature -> top_k -> top_p -> min_p -> likeliest first, where the cumulative weight passes `uniform`
//
// Nothing here looks at more than one text. Weights are relative to the likeliest token's; their sums are double.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "model.hpp"
#include "vector.hpp"

constexpr double LEAST_TEMPERATURE = 1e-6;  // below it the likeliest token is taken
constexpr double MOST_TEMPERATURE = 1e30;   // above it nothing changes any more, and float ends
constexpr size_t FIRST_LOOK = 512;          // likeliest tokens looked at before a whole vocabulary is sorted for top_p
constexpr float NOTHING = -87.0f;           // what is e^-87 times as likely as another is never drawn
constexpr int64_t BROKEN = -1;              // instead of a token: the logits hold NaN or +infinity, or nothing but -infinity

struct Candidate {
    float value;  // scaled logit, <= 0
    int64_t token;
};

static inline bool likelier(const Candidate& a, const Candidate& b) {
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
    return scaled < (least > NOTHING ? least : NOTHING) ? vec{} : exponential(scaled);
}

static inline double sum_in_double(vec weights) {
    double sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += double(weights[lane]);
    return sum;
}

// In the order of the vocabulary: the first token at which the sum of weights passes `uniform` of the whole.
static inline int64_t draw_in_order(const float* logits, size_t size, float top, float temperature, float least,
                                    double uniform) {
    constexpr size_t STRETCH = 16 * LANES;
    static thread_local std::vector<double> sums;
    sums.clear();
    double total = 0;
    for (size_t begin = 0; begin < size; begin += STRETCH) {
        vec sum{};
        for (size_t i = begin; i < size && i < begin + STRETCH; i += LANES)
            sum += weight_of(scaled_at(logits, size, i, top, temperature), least);
        sums.push_back(sum_in_double(sum));
        total += sums.back();
    }
    const double mark = uniform * total;
    double reached = 0;
    size_t stretch = 0;
    for (; stretch + 1 < sums.size() && reached + sums[stretch] <= mark; stretch++) reached += sums[stretch];
    int64_t last = -1;  // of the stretch, for a mark that only rounding lets escape
    for (size_t i = stretch * STRETCH; i < size && i < (stretch + 1) * STRETCH; i += LANES) {
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

// The `count` likeliest tokens, in no order; of equal ones those that come first.
static inline void collect(const float* logits, size_t size, float top, float temperature, size_t count,
                           std::vector<Candidate>& found) {
    found.clear();
    float bar = -INFINITY;  // what a token must exceed, once there have been enough
    bool enough = false;
    const auto prune = [&] {
        std::nth_element(found.begin(), found.begin() + int64_t(count) - 1, found.end(), likelier);
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

static inline double weight_of(float scaled) { return scaled < NOTHING ? 0.0 : double(exponential(fill(scaled))[0]); }

// A token by its logits (size), or BROKEN.
static inline int64_t draw(const float* logits, size_t size, const Sampling& how, double uniform) {
    const float top = top_of(logits, size);
    if (!(top == top)) return BROKEN;
    if (how.temperature < LEAST_TEMPERATURE) {
        size_t token = 0;
        while (logits[token] != top) token++;
        return int64_t(token);
    }
    const float temperature = float(std::min(how.temperature, MOST_TEMPERATURE));
    const float least = how.min_p > 0 ? float(std::log(how.min_p)) : -INFINITY;
    const bool few = how.top_k > 0 && size_t(how.top_k) < size;
    if (!few && how.top_p >= 1) return draw_in_order(logits, size, top, temperature, least, uniform);

    static thread_local std::vector<Candidate> found;
    static thread_local std::vector<double> reached;
    const auto look = [&](size_t count) {  // their weights' sum
        collect(logits, size, top, temperature, count, found);
        std::sort(found.begin(), found.end(), likelier);
        reached.clear();
        double sum = 0;
        for (const Candidate& one : found) reached.push_back(sum += weight_of(one.value));
        return sum;
    };
    double total;
    if (few) {
        total = look(size_t(how.top_k));
    } else {
        total = 0;
        for (size_t i = 0; i < size; i += LANES)
            total += sum_in_double(weight_of(scaled_at(logits, size, i, top, temperature), -INFINITY));
        if (size <= 2 * FIRST_LOOK || look(FIRST_LOOK) <= how.top_p * total) look(size);
    }
    size_t kept = 1;  // the likeliest always stays
    while (kept < found.size() && (how.top_p >= 1 || reached[kept - 1] < how.top_p * total) && found[kept].value >= least)
        kept++;
    const double mark = uniform * reached[kept - 1];
    const auto place = std::upper_bound(reached.begin(), reached.begin() + int64_t(kept) - 1, mark);
    return found[size_t(place - reached.begin())].token;
}
