// Elementwise operations on one row: norms, activations, rotary embedding.
#pragma once

#include <cmath>

#include "model.hpp"
#include "vector.hpp"

// (x - mean) / sqrt(mean square + eps) * weight + bias; with `rms` the mean is taken as 0. `to` may be `from`.
static void normalize(const Norm& norm, const float* from, float* to, size_t size, bool rms, double eps) {
    if (!norm.present) {
        if (to != from) std::memcpy(to, from, size * sizeof(float));
        return;
    }
    const size_t whole = size - size % LANES;
    float mean = 0;
    if (!rms) {
        vec sum{};
        for (size_t i = 0; i < whole; i += LANES) sum += load<vec>(from + i);
        mean = sum_of(sum);
        for (size_t i = whole; i < size; i++) mean += from[i];
        mean /= float(size);
    }
    vec squares{};
    for (size_t i = 0; i < whole; i += LANES) {
        const vec away = load<vec>(from + i) - mean;
        squares += away * away;
    }
    float square = sum_of(squares);
    for (size_t i = whole; i < size; i++) square += (from[i] - mean) * (from[i] - mean);
    const float scale = float(1 / std::sqrt(double(square) / double(size) + eps));
    for (size_t i = 0; i < whole; i += LANES) {  // complete vectors; the rest follows below
        vec value = (load<vec>(from + i) - mean) * scale;
        if (norm.weight) value *= load<vec>(norm.weight + i);
        if (norm.bias) value += load<vec>(norm.bias + i);
        store(to + i, value);
    }
    for (size_t i = whole; i < size; i++) {
        const float value = (from[i] - mean) * scale;
        to[i] = (norm.weight ? value * norm.weight[i] : value) + (norm.bias ? norm.bias[i] : 0.0f);
    }
}

template <Activation KIND> static inline vec activated(vec x) {
    if constexpr (KIND == GELU) return 0.5f * x * (1.0f + error_function(x * 0.707106781f));
    if constexpr (KIND == GELU_TANH)
        return 0.5f * x * (1.0f + hyperbolic_tangent(0.797884561f * (x + 0.044715f * x * x * x)));
    if constexpr (KIND == SILU) return x / (1.0f + exponential(-x));
    if constexpr (KIND == RELU_SQUARED) return larger(x, vec{}) * larger(x, vec{});
}

template <Activation KIND> static void activate_as(float* values, const float* factors, size_t size) {
    size_t i = 0;
    for (; i + LANES <= size; i += LANES) {
        const vec y = activated<KIND>(load<vec>(values + i));
        store(values + i, factors ? y * load<vec>(factors + i) : y);
    }
    if (i == size) return;
    float edge[LANES] = {};
    std::memcpy(edge, values + i, (size - i) * sizeof(float));
    store(edge, activated<KIND>(load<vec>(edge)));
    for (size_t k = 0; i + k < size; k++) values[i + k] = factors ? edge[k] * factors[i + k] : edge[k];
}

static void activate(float* values, const float* factors, size_t size, int64_t kind) {
    if (kind == GELU) activate_as<GELU>(values, factors, size);
    if (kind == GELU_TANH) activate_as<GELU_TANH>(values, factors, size);
    if (kind == SILU) activate_as<SILU>(values, factors, size);
    if (kind == RELU_SQUARED) activate_as<RELU_SQUARED>(values, factors, size);
}

// Rotates the first 2 * pairs dimensions of one head; interleaved pairs are returned in halves, as in rope.py.
static void rotate(float* head, const float* table, size_t pairs, bool interleaved, float* spare) {
    const float *cosine = table, *sine = table + pairs, *from = head;
    if (interleaved) from = static_cast<const float*>(std::memcpy(spare, head, 2 * pairs * sizeof(float)));
    size_t i = 0;
    for (; i + LANES <= pairs; i += LANES) {
        const vec one = load<vec>(from + (interleaved ? 2 * i : i));
        const vec two = load<vec>(from + (interleaved ? 2 * i + LANES : pairs + i));
        const vec a = interleaved ? evens(one, two) : one, b = interleaved ? odds(one, two) : two;
        const vec c = load<vec>(cosine + i), s = load<vec>(sine + i);
        store(head + i, a * c - b * s);
        store(head + pairs + i, b * c + a * s);
    }
    for (; i < pairs; i++) {
        const float a = from[interleaved ? 2 * i : i], b = from[interleaved ? 2 * i + 1 : pairs + i];
        head[i] = a * cosine[i] - b * sine[i];
        head[pairs + i] = b * cosine[i] + a * sine[i];
    }
}
