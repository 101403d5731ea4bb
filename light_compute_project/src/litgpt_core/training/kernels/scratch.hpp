// Offsets into the caller's scratch memory, in floats: what one pass over a block needs besides what it keeps.
#pragma once

#include "causal.hpp"
#include "product.hpp"

struct Sizes {
    size_t tokens, width, heads, across;
    Size hidden;   // filled up to a multiple of NR
    size_t inner;  // hidden units, twice with a gate
    explicit Sizes(const Block& b)
        : tokens(b.batch * b.length), width(b.width), heads(b.heads * b.head_size),
          across((b.heads + 2 * b.groups) * b.head_size), hidden(round_up(b.hidden, NR), b.hidden),
          inner(hidden.all * (b.gated ? 2 : 1)) {}
};

static inline size_t larger_of(size_t a, size_t b) { return a > b ? a : b; }
static inline size_t padded(size_t floats) { return round_up(floats, 64); }

template <class N> struct Scratch {
    size_t qkv, proj, fc, mlp_proj;                         // packed weights
    size_t inner, middle, mixed, across, shared;            // backward only: gradients, and packed inputs
    size_t norm_sums, head_sums;                            // backward only: sums of norms, per block and per group
    size_t room, rows, causal, per_thread, total;

    Scratch(const Block& b, int threads, bool backward) {
        const Sizes s(b);
        const Blocks<N> blocks(s.tokens);
        size_t at = 0;
        auto take = [&at](size_t floats) {
            const size_t begin = at;
            at += padded(floats);
            return begin;
        };
        qkv = take(s.across * s.width), proj = take(s.heads * s.width);
        fc = take(s.inner * s.width), mlp_proj = take(s.hidden.all * s.width);
        inner = middle = mixed = across = shared = norm_sums = head_sums = 0;
        if (backward) {
            inner = take(s.tokens * s.inner), middle = take(s.tokens * s.width);
            mixed = take(s.tokens * s.heads), across = take(s.tokens * s.across);
            shared = take(2 * DEPTH * (s.hidden.all + 2 * s.width + s.heads));
            norm_sums = take(blocks.count * 4 * s.width), head_sums = take(size_t(b.batch * b.groups) * 4 * b.head_size);
        }
        const size_t before = at;
        room = take(ROOM<N>);
        const size_t widest = larger_of(larger_of(s.inner, s.across), larger_of(s.width, s.heads));
        rows = take(BLOCK_ROWS<N> * widest);
        causal = take(CausalRoom::size(b));
        per_thread = at - before;
        total = before + per_thread * threads;
    }
};
