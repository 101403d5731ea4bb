// Next-token loss: product with the head, softmax, and the gradient of the logits in one pass, in the place of the logits.
//
//   forward    hidden (n, width) . head^T -> logits (n, vocabulary) -> losses (n,); logits become softmax - one-hot
//   backward   that times `scale` -> gradients of hidden and of the head
//
// The slow implementation that tests compare with is cross_entropy (litgpt_core/model/loss.py).
#pragma once

#include <cmath>

#include "product.hpp"
#include "weight_gradient.hpp"

template <class N> struct LossSizes {
    size_t n, width, vocabulary;
    size_t packed, shared, room, rows, per_thread, total;  // offsets into scratch memory

    LossSizes(size_t n, size_t width, size_t vocabulary, int threads, bool backward) : n(n), width(width), vocabulary(vocabulary) {
        size_t at = 0;
        auto take = [&at](size_t floats) {
            const size_t begin = at;
            at += round_up(floats, 64);
            return begin;
        };
        packed = take(width * vocabulary), shared = take(backward ? 2 * DEPTH * width : 0);
        const size_t before = at;
        room = take(ROOM<N>), rows = take(BLOCK_ROWS<N> * (width > vocabulary ? width : vocabulary));
        per_thread = at - before;
        total = before + per_thread * threads;
    }
};

// In place: logits of one token -> softmax - one-hot of the target. Returns the loss in nats. `size` is a multiple of LANES.
static inline float softmax_loss(float* logits, size_t size, int64_t target) {
    vec tops = fill(-INFINITY);
    for (size_t i = 0; i < size; i += LANES) tops = larger(tops, load<vec>(logits + i));
    const float top = largest_of(tops), score = logits[target] - top;
    vec total{};
    for (size_t i = 0; i < size; i += LANES) {
        const vec value = bounded_exponential(load<vec>(logits + i) - top);
        store(logits + i, value);
        total += value;
    }
    const float sum = sum_of(total), share = 1.0f / sum;
    for (size_t i = 0; i < size; i += LANES) store(logits + i, load<vec>(logits + i) * share);
    logits[target] -= 1.0f;
    return std::log(sum) - score;
}

template <class N>
static void loss_forward(const Team& team, const LossSizes<N>& s, const float* hidden, const float* head, const int64_t* targets,
                         int64_t ignored, float* logits, float* losses, float* scratch) {
    float* mine = scratch + s.per_thread * team.thread;
    pack_transposed<N>(team, head, s.width, s.vocabulary, scratch + s.packed, 0, s.vocabulary);
    team.wait();
    const Blocks<N> blocks(s.n);
    team.for_each(blocks.count, [&](size_t block) {
        const size_t begin = blocks.begin(block), end = blocks.begin(block + 1);
        block_product<N>(Plain{hidden, s.width}, begin, end, s.width, scratch + s.packed, s.vocabulary, mine + s.rows,
                      mine + s.room, [&](size_t row, size_t column, vec one, vec two) {
                          store(logits + row * s.vocabulary + column, one);
                          store(logits + row * s.vocabulary + column + LANES, two);
                      });
        for (size_t row = begin; row < end; row++) {
            float* line = logits + row * s.vocabulary;
            if (targets[row] != ignored) {
                losses[row] = softmax_loss(line, s.vocabulary, targets[row]);
            } else {
                losses[row] = 0;
                std::memset(line, 0, s.vocabulary * sizeof(float));
            }
        }
    });
}

struct Scaled {
    const float* from;
    size_t width;
    float factor;
    void prepare(size_t, size_t) const {}
    vec at(size_t row, size_t column) const { return load<vec>(from + row * width + column) * factor; }
};

template <class N>
static void loss_backward(const Team& team, const LossSizes<N>& s, const float* hidden, const float* head, const float* slopes,
                          float scale, float* hidden_gradient, float* head_gradient, bool add, float* scratch) {
    float* mine = scratch + s.per_thread * team.thread;
    pack_straight<N>(team, head, nullptr, s.vocabulary, s.width, scratch + s.packed);
    team.wait();
    const Blocks<N> blocks(s.n);
    team.for_each(blocks.count, [&](size_t block) {
        block_product<N>(Scaled{slopes, s.vocabulary, scale}, blocks.begin(block), blocks.begin(block + 1), s.vocabulary,
                      scratch + s.packed, s.width, mine + s.rows, mine + s.room,
                      [&](size_t row, size_t column, vec one, vec two) {
                          store(hidden_gradient + row * s.width + column, one);
                          store(hidden_gradient + row * s.width + column + LANES, two);
                      });
    });
    const MatrixGradient to{head_gradient, nullptr, nullptr, nullptr, s.vocabulary, s.width};
    const GradientProduct<Scaled> product{slopes, s.vocabulary, Scaled{hidden, s.width, scale}, to, add};
    gradient_products<N>(team, s.n, scratch + s.shared, mine + s.room, product);
}
