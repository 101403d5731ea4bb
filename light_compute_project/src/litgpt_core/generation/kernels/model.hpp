// The model as `kernel.py` describes it: sizes and pointers. ctypes mirrors these structs field by field
// (kernel_structs.py) and checks their sizes by `lc_struct_sizes`. Nothing here owns memory.
#pragma once

#include <cstdint>

enum CacheKind : int64_t { CACHE_FLOAT = 0, CACHE_BF16 = 1, CACHE_INT8 = 2 };

enum Activation : int64_t { GELU = 0, GELU_TANH = 1, SILU = 2, RELU_SQUARED = 3 };

struct Norm {
    int64_t present;      // 0: the identity
    const float* weight;  // null: ones
    const float* bias;    // null: zeros
};

struct Linear {
    const void* weight;      // (O, K), contiguous, or packed (packed_weights.hpp, integer_weights.hpp); null: there is none
    const float* bias;       // (O,) or null
    const uint16_t* scales;  // float16 (strips, groups, 16) of integer weights
    int64_t bits;            // 0: fp32 or bf16, as `weights_are_bf16` says; 4 or 8: integers
    const void* down;        // low rank: `weight` (O, rank) reads what `down` (rank, K) makes; both fp32 or bf16
    int64_t rank;            // 0: one matrix
};

struct Layer {
    Norm norm_1, norm_q, norm_k, post_attention_norm, norm_2, post_mlp_norm;
    Linear qkv, proj, fc, fc_value, mlp_proj;  // fc_value: null unless the MLP is gated
    void* keys;                                // (batch, groups, slots, padded head size), as `cache_kind` says
    void* values;
    const float* rope;  // (slots, 2, rope_pairs): cos, sin of each position
    int64_t window;     // tokens that a token sees, itself included; 0: all
};

struct Model {
    int64_t n_layer, width, heads, groups, head_size, padded_head_size, rope_pairs, hidden, vocabulary;
    int64_t slots;  // of the cache, a multiple of 16
    int64_t weights_are_bf16, weights_are_packed, cache_kind, rms_norm, parallel, shared_norm, norm_qk_over_all_heads;
    int64_t rope_interleaved, activation;
    double norm_eps, score_scale, score_cap, logit_cap, embedding_scale;  // caps: 0 for none
    Linear token_embedding;                                               // (vocabulary, width)
    const void* position_embedding;                                       // (positions, width) or null
    Norm last_norm;
    Linear head;
    const Layer* layers;
};

// How the tokens of one sequence are sampled: `SamplingSettings`, without the penalties.
struct Sampling {
    double temperature, top_p, min_p;
    int64_t top_k;  // 0: all
};

// One call: n tokens, each of some sequence at some position. A prompt is many tokens of one sequence, a step of a batch
// one token of each.
struct Tokens {
    int64_t n;
    int64_t* ids;
    const int64_t* sequences;
    int64_t* positions;
    int64_t n_logits;  // logits are computed for these rows of the n
    const int64_t* logit_rows;
};

// Sampling for each of n rows, `steps` times; each sampled token is the input of the next step, at the next position.
struct SamplingCall {
    int64_t steps, vocabulary;  // only tokens below `vocabulary` are sampled
    const Sampling* settings;   // (n,)
    const double* uniforms;     // (n, steps)
    int64_t* tokens;            // (n, steps): tokens, or NON_FINITE
};
