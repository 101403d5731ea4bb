// One transformer block, forward and backward. Every thread runs the same phases; rows of tokens (products), pairs of a sequence
// and a group of heads (attention), and rows of weights (their gradients) are divided among threads, with a barrier between.
//
//   forward    pack weights | norm_1 qkv | attend | proj + x, norm_2 fc, act mlp_proj + middle
//   backward   pack weights | mlp_proj, act', fc, norm_2', proj | attend | qkv, norm_1', then for each chunk of tokens
//              pack inputs | gradients of all weights, and last the sums of norms
//
// The slow implementation that tests compare with is Block (litgpt_core/model/block.py).
#pragma once

#include "causal.hpp"
#include "product.hpp"
#include "rows.hpp"
#include "scratch.hpp"
#include "weight_gradient.hpp"

// `N`: see product.hpp.
template <class N> class BlockPass {
  public:
    BlockPass(const Block& block, const Kept& kept, const float* x, float* scratch, bool backward, const Team& team)
        : b(block), s(block), kept(kept), x(x), at(block, team.threads, backward), blocks(s.tokens), team(team),
          scratch(scratch), mine(scratch + at.per_thread * team.thread) {}

    void forward(float* out) {
        pack_transposed<N>(team, b.qkv.weight, s.width, s.across, scratch + at.qkv, 0, s.across);
        pack_transposed<N>(team, b.proj.weight, s.heads, s.width, scratch + at.proj, 0, s.width);
        pack_transposed<N>(team, b.fc.weight, s.width, s.hidden, scratch + at.fc, 0, s.inner);
        if (b.gated) pack_transposed<N>(team, b.fc_value.weight, s.width, s.hidden, scratch + at.fc, s.hidden.all, s.inner);
        pack_transposed<N>(team, b.mlp_proj.weight, s.hidden, s.width, scratch + at.mlp_proj, 0, s.width);
        team.wait();
        const Normalised first{b.norm_1, x, s.width, b.rms != 0, true, kept.statistics_1};
        for_blocks([&](size_t begin, size_t end, size_t) {
            multiply(first, begin, end, s.width, at.qkv, s.across, [&](size_t row, size_t column, vec one, vec two) {
                put(kept.qkv + row * s.across + column, with_bias(one, b.qkv.bias, column),
                    with_bias(two, b.qkv.bias, column + LANES));
            });
        });
        team.wait();
        for_groups([&](Heads& causal, size_t sequence, size_t group) {
            const size_t token = sequence * b.length;
            causal.forward(kept.qkv + token * s.across, group, kept.mixed + token * s.heads, kept.partitions + token * b.heads);
        });
        team.wait();
        if (b.activation == GELU) feed_forward<GELU>(out);
        if (b.activation == GELU_TANH) feed_forward<GELU_TANH>(out);
        if (b.activation == SILU) feed_forward<SILU>(out);
    }

    void backward(const float* gradient, float* x_gradient, const BlockGradient& to) {
        pack_straight<N>(team, b.qkv.weight, nullptr, s.across, s.width, scratch + at.qkv);
        pack_straight<N>(team, b.proj.weight, nullptr, s.width, s.heads, scratch + at.proj);
        pack_straight<N>(team, b.fc.weight, b.gated ? b.fc_value.weight : nullptr, s.hidden, s.width, scratch + at.fc);
        pack_straight<N>(team, b.mlp_proj.weight, nullptr, s.width, s.hidden, scratch + at.mlp_proj);
        team.wait();
        if (b.activation == GELU) feed_forward_gradient<GELU>(gradient);
        if (b.activation == GELU_TANH) feed_forward_gradient<GELU_TANH>(gradient);
        if (b.activation == SILU) feed_forward_gradient<SILU>(gradient);
        team.wait();
        attend_gradient(to);
        team.wait();
        input_gradient(x_gradient);
        weight_gradients(gradient, to);
        norm_gradients(to);
    }

  private:
    using Heads = Causal<typename N::InRegisters>;

    const Block& b;
    const Sizes s;
    const Kept& kept;
    const float* x;
    const Scratch<N> at;
    const Blocks<N> blocks;
    const Team& team;
    float *scratch, *mine;

    template <class Work> void for_blocks(const Work& work) const {
        team.for_each(blocks.count, [&](size_t i) { work(blocks.begin(i), blocks.begin(i + 1), i); });
    }

    template <class Work> void for_groups(const Work& work) const {
        Heads causal(b, mine + at.causal);
        team.for_each(b.batch * b.groups, [&](size_t item) { work(causal, item / b.groups, item % b.groups); });
    }

    template <class Source, class Finish>
    void multiply(const Source& source, size_t begin, size_t end, size_t depth, size_t packed, size_t columns,
                  const Finish& finish) const {
        block_product<N>(source, begin, end, depth, scratch + packed, columns, mine + at.rows, mine + at.room, finish);
    }

    static void put(float* to, vec one, vec two) { store(to, one), store(to + LANES, two); }
    static vec with_bias(vec value, const float* bias, size_t column) { return bias ? value + load<vec>(bias + column) : value; }

    template <Activation KIND> void feed_forward(float* out) {
        const Plain mixed{kept.mixed, s.heads};
        const Normalised second{b.norm_2, kept.middle, s.width, b.rms != 0, true, kept.statistics_2};
        const Activated<KIND> active{kept.hidden, s.inner, s.hidden.all, b.gated != 0};
        for_blocks([&](size_t begin, size_t end, size_t) {
            multiply(mixed, begin, end, s.heads, at.proj, s.width, [&](size_t row, size_t column, vec one, vec two) {
                add_to(x, b.proj.bias, row, column, one, two, kept.middle);
            });
            multiply(second, begin, end, s.width, at.fc, s.inner, [&](size_t row, size_t column, vec one, vec two) {
                const bool value = b.gated && column >= s.hidden.all;
                const float* bias = value ? b.fc_value.bias : b.fc.bias;
                const size_t place = value ? column - s.hidden.all : column;
                put(kept.hidden + row * s.inner + column, with_bias(one, bias, place), with_bias(two, bias, place + LANES));
            });
            multiply(active, begin, end, s.hidden.all, at.mlp_proj, s.width, [&](size_t row, size_t column, vec one, vec two) {
                add_to(kept.middle, b.mlp_proj.bias, row, column, one, two, out);
            });
        });
    }

    void add_to(const float* from, const float* bias, size_t row, size_t column, vec one, vec two, float* to) const {
        const float* place = from + row * s.width + column;
        put(to + row * s.width + column, load<vec>(place) + with_bias(one, bias, column),
            load<vec>(place + LANES) + with_bias(two, bias, column + LANES));
    }

    // Rows: gradient -> of `hidden` (scratch inner), of `middle`, of `mixed`. `kept.hidden` becomes what mlp_proj read.
    template <Activation KIND> void feed_forward_gradient(const float* gradient) {
        const Plain outer{gradient, s.width}, inner{scratch + at.inner, s.inner}, middle{scratch + at.middle, s.width};
        for_blocks([&](size_t begin, size_t end, size_t block) {
            multiply(outer, begin, end, s.width, at.mlp_proj, s.hidden.all, [&](size_t row, size_t column, vec one, vec two) {
                activation_gradient<KIND>(row, column, one);
                activation_gradient<KIND>(row, column + LANES, two);
            });
            through_norm(inner, begin, end, s.inner, at.fc, [&](size_t row, const float* line) {
                const float* statistics = kept.statistics_2 + 2 * row;
                norm_gradient(b.norm_2, kept.middle + row * s.width, statistics[0], statistics[1], b.rms, s.width, line,
                              gradient + row * s.width, scratch + at.middle + row * s.width, sums_of_block(block, 2),
                              sums_of_block(block, 3));
            }, sums_of_block(block, 2));
            multiply(middle, begin, end, s.width, at.proj, s.heads, [&](size_t row, size_t column, vec one, vec two) {
                put(scratch + at.mixed + row * s.heads + column, one, two);
            });
        });
    }

    // Sums for weight (0, 2) and bias (1, 3) of norm_1 and norm_2 over the rows of a block.
    float* sums_of_block(size_t block, size_t which) const { return scratch + at.norm_sums + (block * 4 + which) * s.width; }

    // A product of a block's rows whose result is only read by a norm's gradient, row by row.
    template <class Source, class Work>
    void through_norm(const Source& source, size_t begin, size_t end, size_t depth, size_t packed, const Work& work,
                      float* sums) const {
        float* lines = mine + at.rows;  // where partial sums are, so that they are replaced by the whole ones
        multiply(source, begin, end, depth, packed, s.width, [&](size_t row, size_t column, vec one, vec two) {
            put(lines + (row - begin) * s.width + column, one, two);
        });
        std::memset(sums, 0, 2 * s.width * sizeof(float));
        for (size_t row = begin; row < end; row++) work(row, lines + (row - begin) * s.width);
    }

    template <Activation KIND> void activation_gradient(size_t row, size_t column, vec gradient) {
        float* place = kept.hidden + row * s.inner + column;
        float* to = scratch + at.inner + row * s.inner + column;
        const ValueAndSlope active = activated<KIND>(load<vec>(place));
        if (!b.gated) {
            store(to, gradient * active.slope);
            store(place, active.value);
            return;
        }
        const vec value = load<vec>(place + s.hidden.all);
        store(to, gradient * value * active.slope);
        store(to + s.hidden.all, gradient * active.value);
        store(place, active.value * value);
    }

    void attend_gradient(const BlockGradient&) {
        const size_t hs = b.head_size;
        for_groups([&](Heads& causal, size_t sequence, size_t group) {
            const size_t token = sequence * b.length;
            float* sums = scratch + at.head_sums + (sequence * b.groups + group) * 4 * hs;
            std::memset(sums, 0, 4 * hs * sizeof(float));
            causal.backward(kept.qkv + token * s.across, group, kept.mixed + token * s.heads,
                            kept.partitions + token * b.heads, scratch + at.mixed + token * s.heads,
                            scratch + at.across + token * s.across, {sums, sums + hs}, {sums + 2 * hs, sums + 3 * hs});
        });
    }

    static MatrixGradient one_matrix(const LinearGradient& to, Size rows, Size columns) {
        return {to.weight, nullptr, to.bias, nullptr, rows, columns};
    }

    void weight_gradients(const float* gradient, const BlockGradient& to) const {
        const Normalised first{b.norm_1, x, s.width, b.rms != 0, false, kept.statistics_1};
        const Normalised second{b.norm_2, kept.middle, s.width, b.rms != 0, false, kept.statistics_2};
        const MatrixGradient both{to.fc.weight, to.fc_value.weight, to.fc.bias, to.fc_value.bias, s.hidden, s.width};
        const Plain active{kept.hidden, s.inner}, mixed{kept.mixed, s.heads};
        const GradientProduct<Plain> mlp_proj{gradient, s.width, active, one_matrix(to.mlp_proj, s.width, s.hidden)};
        const GradientProduct<Normalised> fc{scratch + at.inner, s.inner, second, both};
        const GradientProduct<Normalised> qkv{scratch + at.across, s.across, first, one_matrix(to.qkv, s.across, s.width)};
        const GradientProduct<Plain> proj{scratch + at.middle, s.width, mixed, one_matrix(to.proj, s.width, s.heads)};
        gradient_products<N>(team, s.tokens, scratch + at.shared, mine + at.room, mlp_proj, fc, qkv, proj);
    }

    void input_gradient(float* x_gradient) {
        const Plain across{scratch + at.across, s.across};
        for_blocks([&](size_t begin, size_t end, size_t block) {
            through_norm(across, begin, end, s.across, at.qkv, [&](size_t row, const float* line) {
                const float* statistics = kept.statistics_1 + 2 * row;
                norm_gradient(b.norm_1, x + row * s.width, statistics[0], statistics[1], b.rms, s.width, line,
                              scratch + at.middle + row * s.width, x_gradient + row * s.width, sums_of_block(block, 0),
                              sums_of_block(block, 1));
            }, sums_of_block(block, 0));
        });
    }

    // Sums over blocks, or over sequences and groups, in their order.
    void norm_gradients(const BlockGradient& to) const {
        const NormGradient of_rows[] = {to.norm_1, to.norm_2}, of_heads[] = {to.norm_q, to.norm_k};
        for (size_t which = 0; which < 2; which++) {
            add_up(scratch + at.norm_sums + 2 * which * s.width, blocks.count, 4 * s.width, s.width, of_rows[which]);
            add_up(scratch + at.head_sums + 2 * which * b.head_size, b.batch * b.groups, 4 * b.head_size, b.head_size,
                   of_heads[which]);
        }
    }

    void add_up(const float* sums, size_t parts, size_t apart, size_t size, const NormGradient& to) const {
        const Share share = team.share_of(size);
        float* places[] = {to.weight, to.bias};
        for (size_t which = 0; which < 2; which++) {
            if (!places[which]) continue;
            for (size_t i = share.begin; i < share.end; i++) {
                float sum = 0;
                for (size_t part = 0; part < parts; part++) sum += sums[part * apart + which * size + i];
                places[which][i] = sum;
            }
        }
    }
};
