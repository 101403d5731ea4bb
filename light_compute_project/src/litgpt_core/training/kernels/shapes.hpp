// What `cpu_block.py` passes: sizes and pointers of one block. ctypes mirrors these structs field by field (cpu_structs.py) and
// checks their sizes. Nothing here owns memory. All numbers are float32 and contiguous.
#pragma once

#include <cstdint>

enum Activation : int64_t { GELU = 0, GELU_TANH = 1, SILU = 2 };

struct Norm {
    int64_t present;      // 0: the identity (norms of queries and keys only)
    const float* weight;  // null: ones
    const float* bias;    // null: zeros
    double eps, offset;   // `offset` is added to the weight
};

struct Linear {
    const float* weight;  // (outputs, inputs)
    const float* bias;    // (outputs,) or null
};

struct Block {
    int64_t batch, length, width, heads, groups, head_size, rope_pairs, hidden;
    int64_t gated, activation, rms;
    int64_t bfloat16;  // products of matrices in bfloat16
    double score_scale;
    Norm norm_1, norm_q, norm_k, norm_2;
    Linear qkv, proj, fc, fc_value, mlp_proj;  // fc_value: null unless gated
    const float *cosine, *sine;                // (length, rope_pairs)
};

struct NormGradient {
    float *weight, *bias;  // null where there is none
};

struct LinearGradient {
    float *weight, *bias;
};

struct BlockGradient {
    NormGradient norm_1, norm_q, norm_k, norm_2;
    LinearGradient qkv, proj, fc, fc_value, mlp_proj;
};

// What the backward pass reads, besides the input (tokens, width). tokens = batch * length.
struct Kept {
    float* statistics_1;  // (tokens, 2): mean and 1 / deviation
    float* statistics_2;  // (tokens, 2)
    float* qkv;           // (tokens, (heads + 2 * groups) * head_size), before norms and rotation
    float* mixed;         // (tokens, heads * head_size)
    float* partitions;    // (tokens, heads): logarithms of the sums of softmax
    float* middle;        // (tokens, width): the residual stream between attention and MLP
    float* hidden;        // (tokens, hidden or 2 * hidden): before the activation; the backward pass writes to it
};
