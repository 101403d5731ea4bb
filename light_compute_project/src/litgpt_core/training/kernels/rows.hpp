// Operations on rows, forward and backward: norms, activations, rotary embedding. The definitions are those of
// litgpt_core.model (norm, mlp, rope).
#pragma once

#include <cmath>

#include "shapes.hpp"
#include "vector.hpp"

// --- norms

// Mean and 1 / sqrt(variance + eps) of `size` numbers, a multiple of LANES; with `rms` the mean is taken as 0.
static inline void statistics(const float* from, size_t size, bool rms, double eps, float* mean, float* scale) {
    float middle = 0;
    if (!rms) {
        vec sum{};
        for (size_t i = 0; i < size; i += LANES) sum += load<vec>(from + i);
        middle = sum_of(sum) / float(size);
    }
    vec squares{};
    for (size_t i = 0; i < size; i += LANES) {
        const vec away = load<vec>(from + i) - middle;
        squares += away * away;
    }
    *mean = middle;
    *scale = float(1 / std::sqrt(double(sum_of(squares)) / double(size) + eps));
}

// LANES numbers of a normalised row.
static inline vec normalised(const Norm& norm, vec value, float mean, float scale, size_t at) {
    value = (value - mean) * scale;
    if (norm.weight) value *= load<vec>(norm.weight + at) + float(norm.offset);
    if (norm.bias) value += load<vec>(norm.bias + at);
    return value;
}

// A source for products: normalised rows. With `measure` the statistics of a block are taken first, otherwise they are there.
struct Normalised {
    const Norm& norm;
    const float* from;
    size_t width;
    bool rms, measure;
    float* statistics_of;  // (rows, 2)
    void prepare(size_t begin, size_t end) const {
        if (!measure) return;
        for (size_t row = begin; row < end; row++)
            statistics(from + row * width, width, rms, norm.eps, statistics_of + 2 * row, statistics_of + 2 * row + 1);
    }
    vec at(size_t row, size_t column) const {
        const float* s = statistics_of + 2 * row;
        return normalised(norm, load<vec>(from + row * width + column), s[0], s[1], column);
    }
};

// Gradient of a norm's input from that of its output; the sums for its weight and bias are added to (null: not wanted).
// `to` = `add` (may be null) + the gradient.
static inline void norm_gradient(const Norm& norm, const float* from, float mean, float scale, bool rms, size_t size,
                                 const float* gradient, const float* add, float* to, float* weight_sums,
                                 float* bias_sums) {
    vec plain{}, along{};
    for (size_t i = 0; i < size; i += LANES) {
        const vec unit = (load<vec>(from + i) - mean) * scale, out = load<vec>(gradient + i);
        const vec inner = norm.weight ? out * (load<vec>(norm.weight + i) + float(norm.offset)) : out;
        if (weight_sums) store(weight_sums + i, load<vec>(weight_sums + i) + out * unit);
        if (bias_sums) store(bias_sums + i, load<vec>(bias_sums + i) + out);
        plain += inner;
        along += inner * unit;
    }
    const float shift = rms ? 0.0f : sum_of(plain) / float(size), slope = sum_of(along) / float(size);
    for (size_t i = 0; i < size; i += LANES) {
        const vec unit = (load<vec>(from + i) - mean) * scale, out = load<vec>(gradient + i);
        const vec inner = norm.weight ? out * (load<vec>(norm.weight + i) + float(norm.offset)) : out;
        vec value = (inner - shift - unit * slope) * scale;
        if (add) value += load<vec>(add + i);
        store(to + i, value);
    }
}

// --- activations

struct ValueAndSlope {
    vec value, slope;
};

// The normal distribution's share below x: erfc after Abramowitz & Stegun 7.1.26, wrong by at most 1e-7.
template <Activation KIND> static inline ValueAndSlope activated(vec x) {
    if constexpr (KIND == GELU) {
        const vec size = absolute(x), bell = bounded_exponential(-0.5f * x * x);
        const vec t = 1.0f / (1.0f + 0.231641888f * size);  // 0.3275911 / sqrt(2)
        vec sum = fill(1.061405429f);
        sum = sum * t - 1.453152027f;
        sum = sum * t + 1.421413741f;
        sum = sum * t - 0.284496736f;
        sum = sum * t + 0.254829592f;
        const vec outside = 0.5f * sum * t * bell, below = x < 0 ? outside : 1.0f - outside;
        return {x * below, below + x * bell * 0.398942280f};
    }
    if constexpr (KIND == GELU_TANH) {
        const vec square = x * x, t = hyperbolic_tangent(0.797884561f * x * (1.0f + 0.044715f * square));
        const vec half = 0.5f * (1.0f + t);
        return {x * half, half + 0.5f * x * (1.0f - t * t) * (0.797884561f + 0.107032265f * square)};
    }
    if constexpr (KIND == SILU) {
        const vec share = 1.0f / (1.0f + exponential(-x));
        return {x * share, share * (1.0f + x * (1.0f - share))};
    }
}

// A source for products: activated numbers, or a gate times a value `hidden` further on in the row.
template <Activation KIND> struct Activated {
    const float* from;
    size_t width, hidden;
    bool gated;
    void prepare(size_t, size_t) const {}
    vec at(size_t row, size_t column) const {
        const float* place = from + row * width + column;
        const vec value = activated<KIND>(load<vec>(place)).value;
        return gated ? value * load<vec>(place + hidden) : value;
    }
};

// --- rotary embedding, pairs in halves

static inline void rotate(float* row, const float* cosine, const float* sine, size_t pairs, float direction) {
    for (size_t i = 0; i < pairs; i++) {
        const float a = row[i], b = row[pairs + i], s = direction * sine[i];
        row[i] = a * cosine[i] - b * s;
        row[pairs + i] = b * cosine[i] + a * s;
    }
}
