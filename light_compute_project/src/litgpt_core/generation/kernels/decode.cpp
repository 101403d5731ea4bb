// Forward passes with a KV cache: token ids in, logits out, for one new token or for many; or several passes, each with
// the tokens sampled from the logits of the previous one (sampling.hpp). Activations and sums are fp32; the large
// matrices are read as stored, and the cache is fp32, bf16 or int8. The whole pass is one parallel region: every
// thread executes the same phases and computes its share of the output columns, or of the heads, with a barrier between
// phases. Cheap operations (norms, packing) are repeated by every thread instead of being shared.
//
//   embed | norm_1 qkv | rope, cache | attend | proj + | norm_2 fc | proj + | ...next layer... | ln_f head
//
// Every step is defined by litgpt_core.model (gpt, block, attention, mlp, norm, rope), which the tests compare with.
// Mixtures of experts and latent attention are not supported.
#include <omp.h>

#include "attention.hpp"
#include "attention_int8.hpp"
#include "attention_pairs.hpp"
#include "attention_rows.hpp"
#include "elementwise.hpp"
#include "integer_weights.hpp"
#include "matmul.hpp"
#include "model.hpp"
#include "packed_weights.hpp"
#include "sampling.hpp"
#include "threads.hpp"

namespace {

size_t padded(size_t size) { return (size + 63) / 64 * 64; }

// Offsets into the caller's scratch memory, in floats.
struct Layout {
    size_t x, before, branch, qkv, mixed, hidden, value, inner, rank, packed, scores, query, per_thread, total;

    Layout(const Model& m, size_t n, int threads) {
        const size_t heads = m.heads * m.head_size, all = (m.heads + 2 * m.groups) * m.head_size;
        const size_t widest = padded(m.width > m.hidden ? m.width : m.hidden);
        size_t at = 0;
        auto take = [&at](size_t floats) {
            const size_t begin = at;
            at += padded(floats);
            return begin;
        };
        x = take(n * m.width), before = take(n * m.width), branch = take(n * m.width);
        qkv = take(n * all), mixed = take(n * heads), hidden = take(n * m.hidden), value = take(n * m.hidden);
        rank = 0;  // the largest
        for (int64_t i = 0; i < m.n_layer; i++)
            for (const Linear& each : {m.layers[i].qkv, m.layers[i].proj, m.layers[i].fc, m.layers[i].fc_value, m.layers[i].mlp_proj})
                rank = size_t(each.rank) > rank ? each.rank : rank;
        rank = padded(rank), inner = take(2 * n * rank);
        const size_t shared = at;
        at = 0;
        packed = take(n * (widest > heads ? widest : heads)), scores = take(ROWS * (m.slots + 64 + m.padded_head_size));
        query = take(ROWS * padded(m.padded_head_size > m.width ? m.padded_head_size : m.width));
        per_thread = at;
        packed += shared, scores += shared, query += shared;
        total = shared + per_thread * threads;
    }
};

// W: dtype of the weights, C: dtype of the cache.
template <class W, class C> class Pass {
  public:
    Pass(const Model& model, const Tokens& tokens, float* logits, float* scratch, int thread, int threads, Barrier& barrier)
        : m(model), t(tokens), logits(logits), at(model, tokens.n, threads), thread(thread), threads(threads),
          barrier(barrier), n(tokens.n), c(model.width), x(scratch + at.x), before(scratch + at.before),
          branch(scratch + at.branch), qkv(scratch + at.qkv), mixed(scratch + at.mixed), hidden(scratch + at.hidden),
          value(scratch + at.value), inner(scratch + at.inner), packed(scratch + at.packed + at.per_thread * thread),
          scores(scratch + at.scores + at.per_thread * thread), spare(scratch + at.query + at.per_thread * thread) {}

    void run() {
        embed();
        barrier.wait(threads);
        for (int64_t i = 0; i < m.n_layer; i++) {
            const Layer& layer = m.layers[i];
            attend(layer);
            feed_forward(layer);
        }
        head();
    }

    // Multi-step decode: several tokens for each row; a row is one token of one sequence.
    void decode_steps(const SamplingCall& sampling_call) {
        const Share mine = share(n, thread, threads, 1);
        for (int64_t step = 0; step < sampling_call.steps; step++) {
            run();
            barrier.wait(threads);
            for (size_t line = mine.begin; line < mine.end; line++) {
                const size_t at = line * sampling_call.steps + step;
                const int64_t token = sample(logits + line * m.vocabulary, sampling_call.vocabulary,
                                             sampling_call.settings[line], sampling_call.uniforms[at]);
                sampling_call.tokens[at] = token;
                t.ids[line] = token == NON_FINITE ? 0 : token;  // this sequence has failed; its next tokens are ignored
                t.positions[line]++;
            }
        }
    }

  private:
    const Model& m;
    const Tokens& t;
    float* const logits;
    const Layout at;
    const int thread, threads;
    Barrier& barrier;
    const size_t n, c;
    float *const x, *const before, *const branch, *const qkv, *const mixed, *const hidden, *const value, *const inner;
    size_t turn = 0;  // which half of `inner` is used: another thread may still be reading the other
    float *const packed, *const scores, *const spare;

    void embed() {
        const W* embedding = static_cast<const W*>(m.token_embedding.weight);
        const W* learned = static_cast<const W*>(m.position_embedding);
        const Share mine = share(n, thread, threads, 1);
        for (size_t row = mine.begin; row < mine.end; row++)
            for (size_t i = 0; i < c; i++) {
                float number = m.token_embedding.bits ? integer_at(m.token_embedding, c, t.ids[row], i)
                                                      : widen(embedding[t.ids[row] * c + i]);
                number *= float(m.embedding_scale);
                if (learned) number += widen(learned[t.positions[row] * c + i]);
                x[row * c + i] = number;
            }
    }

    void pack_rows(const float* from, size_t size, const Linear& reader) {
        for (size_t row = 0; row < n; row++) pack_line(from + row * size, row, size, reader);
    }

    // As the weights of `reader` are multiplied: see `pack` in matmul.hpp, packed_weights.hpp and integer_weights.hpp.
    void pack_line(const float* from, size_t line, size_t size, const Linear& reader) {
        if (reader.bits)
            pack_groups(from, reinterpret_cast<Group*>(packed) + line * groups_of(size), size);
        else if (m.weights_are_packed)
            Product<W>::pack(from, reinterpret_cast<typename Product<W>::Number*>(packed) + line * steps<W>(size), size);
        else
            pack(from, packed + line * size, size, static_cast<const W*>(nullptr));
    }

    void pack_normalized(const Norm& norm, const float* from, size_t row, size_t line, const Linear& reader) {
        normalize(norm, from + row * c, spare, c, m.rms_norm, m.norm_eps);
        pack_line(spare, line, c, reader);
    }

    // The first product of a low-rank layer; its result is what is packed afterwards.
    void reduce(const Linear& linear, size_t size, size_t rows) {
        const size_t rank = linear.rank;
        float* between = inner + (turn ^= 1) * n * at.rank;
        columns_of({linear.down, nullptr, nullptr, 0, nullptr, 0}, rank, size, rows, {between, rank, nullptr, false});
        barrier.wait(threads);
        for (size_t row = 0; row < rows; row++) pack_line(between + row * rank, row, rank, linear);
    }

    // This thread's columns of packed (rows, size) times the weights. Changes `packed` if their rank is low.
    Share columns_of(const Linear& linear, size_t outputs, size_t size, size_t rows, const Output& out) {
        if (linear.rank) reduce(linear, size, rows), size = linear.rank;
        const W* weight = static_cast<const W*>(linear.weight);
        const size_t grain = linear.bits ? STRIP : m.weights_are_packed ? PACK_WIDTH : LANES;
        const Share mine = share(outputs, thread, threads, grain);
        const Group* groups = reinterpret_cast<const Group*>(packed);
        if (linear.bits == EIGHT)
            multiply_integers<EIGHT>(linear, size, mine.begin, mine.end, groups, rows, out);
        else if (linear.bits == FOUR)
            multiply_integers<FOUR>(linear, size, mine.begin, mine.end, groups, rows, out);
        else if (m.weights_are_packed)
            multiply_packed(weight, size, mine.begin, mine.end, packed, rows, out);
        else
            multiply(weight, size, mine.begin, mine.end, packed, rows, out);
        return mine;
    }

    // packed times a projection back to the residual stream, then x += [norm of] it.
    void project(const Linear& linear, size_t size, const Norm& post) {
        if (!post.present) {
            columns_of(linear, c, size, n, {x, c, linear.bias, true});
            barrier.wait(threads);
            return;
        }
        columns_of(linear, c, size, n, {branch, c, linear.bias, false});
        barrier.wait(threads);
        const Share mine = share(c, thread, threads, LANES);
        for (size_t row = 0; row < n; row++) {
            normalize(post, branch + row * c, spare, c, m.rms_norm, m.norm_eps);
            for (size_t i = mine.begin; i < mine.end; i++) x[row * c + i] += spare[i];
        }
        barrier.wait(threads);
    }

    void attend(const Layer& layer) {
        const size_t hs = m.head_size, wide = m.padded_head_size, all = (m.heads + 2 * m.groups) * hs;
        if (m.parallel && thread == 0) std::memcpy(before, x, n * c * sizeof(float));  // the input of the MLP
        for (size_t row = 0; row < n; row++) pack_normalized(layer.norm_1, x, row, row, layer.qkv);
        const Share mine = share(n * (m.heads + 2 * m.groups), thread, threads, 1);
        for (size_t item = mine.begin > n * m.heads ? mine.begin : n * m.heads; item < mine.end; item++) {
            const size_t row = item % n, group = item / n - m.heads;
            if (group < size_t(m.groups))
                Cache<C>::prefetch_key(cache_of(layer.keys, row, group), t.positions[row], wide);
            else
                Cache<C>::prefetch_value(cache_of(layer.values, row, group - m.groups), t.positions[row], wide);
        }
        columns_of(layer.qkv, all, c, n, {qkv, all, layer.qkv.bias, false});
        barrier.wait(threads);
        if (m.norm_qk_over_all_heads) {
            const Share rows = share(n, thread, threads, 1);
            for (size_t row = rows.begin; row < rows.end; row++) {
                float *q = qkv + row * all, *k = q + m.heads * hs;
                normalize(layer.norm_q, q, q, m.heads * hs, m.rms_norm, m.norm_eps);
                normalize(layer.norm_k, k, k, m.groups * hs, m.rms_norm, m.norm_eps);
            }
            barrier.wait(threads);
        }
        for (size_t item = mine.begin; item < mine.end; item++) place(layer, item, hs, wide);
        barrier.wait(threads);
        const Share work = share(n * m.heads, thread, threads, 1);
        for (size_t item = work.begin; item < work.end;) {
            const bool by_rows = Cache<C>::BY_ROWS && rows_follow(layer, item, work.end);
            if (by_rows)
                attend_rows_of_head(layer, item, hs, wide);
            else
                attend_head(layer, item, hs, wide);
            item += by_rows ? ROWS : 1;
        }
        barrier.wait(threads);
        pack_rows(mixed, m.heads * hs, layer.proj);
        project(layer.proj, m.heads * hs, layer.post_attention_norm);
    }

    // One head of one token's queries, keys or values: norm, rope; keys and values go to the cache.
    void place(const Layer& layer, size_t item, size_t hs, size_t wide) {
        const size_t row = item % n, head = item / n;
        float* numbers = qkv + (row * (m.heads + 2 * m.groups) + head) * hs;
        const bool is_query = head < size_t(m.heads), is_value = head >= size_t(m.heads + m.groups);
        if (!is_value) {
            const Norm& norm = is_query ? layer.norm_q : layer.norm_k;
            if (norm.present && !m.norm_qk_over_all_heads)
                normalize(norm, numbers, numbers, hs, m.rms_norm, m.norm_eps);
            if (m.rope_pairs)
                rotate(numbers, layer.rope + t.positions[row] * 2 * m.rope_pairs, m.rope_pairs, m.rope_interleaved, spare);
        }
        if (is_query) return;
        const size_t group = (head - m.heads) % m.groups;
        if (is_value)
            Cache<C>::put_value(cache_of(layer.values, row, group), t.positions[row], numbers, hs, wide, spare);
        else
            Cache<C>::put_key(cache_of(layer.keys, row, group), t.positions[row], numbers, hs, wide, spare);
    }

    // The cache of one row's sequence and group, in `keys` or `values`.
    C* cache_of(void* of, size_t row, size_t group) const {
        return static_cast<C*>(of) + (t.sequences[row] * m.groups + group) * Cache<C>::stride(m.slots, m.padded_head_size);
    }

    void attend_head(const Layer& layer, size_t item, size_t hs, size_t wide) {
        const size_t per_group = m.heads / m.groups, row = item % n, head = item / n, group = head / per_group;
        const size_t soon = item + 1 < n * m.heads ? item + 1 : item;
        const int64_t last = t.positions[row] + 1;
        const int64_t first = layer.window && last > layer.window ? last - layer.window : 0;
        std::memset(spare, 0, wide * sizeof(float));
        std::memcpy(spare, qkv + (row * (m.heads + 2 * m.groups) + head) * hs, hs * sizeof(float));
        const HeadInput head_input{spare, hs, wide, first, last, float(m.score_scale), float(m.score_cap),
                                scores, scores + m.slots + 64};
        Cache<C>::attend(head_input, cache_of(layer.keys, row, group), cache_of(layer.values, row, group),
                         cache_of(layer.keys, soon % n, soon / n / per_group), mixed + (row * m.heads + head) * hs);
    }

    // Whether the next items are the same head of consecutive tokens of one sequence that see everything before them.
    bool rows_follow(const Layer& layer, size_t item, size_t end) const {
        const size_t row = item % n;
        if (item + ROWS > end || row + ROWS > n) return false;
        for (int r = 1; r < ROWS; r++)
            if (t.sequences[row + r] != t.sequences[row] || t.positions[row + r] != t.positions[row] + r) return false;
        return !layer.window || t.positions[row] + ROWS <= layer.window;
    }

    void attend_rows_of_head(const Layer& layer, size_t item, size_t hs, size_t wide) {
        if constexpr (Cache<C>::BY_ROWS) {
            const size_t row = item % n, head = item / n, group = head / (m.heads / m.groups), apart = m.slots + 64;
            std::memset(spare, 0, ROWS * wide * sizeof(float));
            for (int r = 0; r < ROWS; r++)
                std::memcpy(spare + r * wide, qkv + ((row + r) * (m.heads + 2 * m.groups) + head) * hs, hs * sizeof(float));
            const HeadInput head_input{spare, hs, wide, 0, t.positions[row] + 1, float(m.score_scale), float(m.score_cap),
                                    scores, scores + ROWS * apart};
            attend_rows(head_input, apart, cache_of(layer.keys, row, group), cache_of(layer.values, row, group),
                        mixed + (row * m.heads + head) * hs, m.heads * hs);
        }
    }

    void feed_forward(const Layer& layer) {
        const float* from = m.parallel ? before : x;
        const Norm& norm = m.shared_norm ? layer.norm_1 : layer.norm_2;
        for (size_t row = 0; row < n; row++) pack_normalized(norm, from, row, row, layer.fc);
        const size_t width = m.hidden;
        const Share mine = columns_of(layer.fc, width, c, n, {hidden, width, layer.fc.bias, false});
        if (layer.fc.rank)
            for (size_t row = 0; row < n; row++) pack_normalized(norm, from, row, row, layer.fc_value);
        if (layer.fc_value.weight) columns_of(layer.fc_value, width, c, n, {value, width, layer.fc_value.bias, false});
        for (size_t row = 0; row < n; row++) {
            const size_t begin = row * width + mine.begin;
            activate(hidden + begin, layer.fc_value.weight ? value + begin : nullptr, mine.end - mine.begin, m.activation);
        }
        barrier.wait(threads);
        pack_rows(hidden, width, layer.mlp_proj);
        project(layer.mlp_proj, width, layer.post_mlp_norm);
    }

    void head() {
        const size_t lines = t.n_logits, width = m.vocabulary;
        for (size_t line = 0; line < lines; line++) pack_normalized(m.last_norm, x, t.logit_rows[line], line, m.head);
        const Share mine = columns_of(m.head, width, c, lines, {logits, width, m.head.bias, false});
        if (m.logit_cap == 0) return;
        const float cap = float(m.logit_cap);
        for (size_t line = 0; line < lines; line++)
            for (size_t i = mine.begin; i < mine.end; i++)
                logits[line * width + i] = std::tanh(logits[line * width + i] / cap) * cap;
    }
};

template <class W, class C>
void forward(const Model& model, const Tokens& tokens, float* logits, float* scratch, int n_threads,
             const SamplingCall* sampling_call) {
    Barrier barrier;
#pragma omp parallel num_threads(n_threads)
    {
        Pass<W, C> pass(model, tokens, logits, scratch, omp_get_thread_num(), omp_get_num_threads(), barrier);
        if (sampling_call)
            pass.decode_steps(*sampling_call);
        else
            pass.run();
    }
}

}  // namespace

extern "C" {

// The sizes of the structs that ctypes mirrors, in the order of model.hpp.
void lc_struct_sizes(int64_t* sizes) {
    const int64_t found[] = {sizeof(Norm), sizeof(Linear), sizeof(Layer), sizeof(Model),
                             sizeof(Sampling), sizeof(Tokens), sizeof(SamplingCall)};
    std::memcpy(sizes, found, sizeof found);
}

// Floats of scratch memory for n tokens at once.
int64_t lc_scratch_size(const Model* model, int64_t n, int64_t threads) {
    return int64_t(Layout(*model, size_t(n), int(threads)).total);
}

int64_t lc_lanes(void) { return LANES; }

// The vector instructions that this library was compiled for.
const char* lc_instructions(void) {
#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
    return "AVX-512 with BF16 and VNNI";
#elif defined(__AVX512VNNI__)
    return "AVX-512 with VNNI";
#elif defined(__AVX512F__)
    return "AVX-512";
#elif defined(__AVXVNNI__)
    return "AVX2 with VNNI";
#elif defined(__AVX2__)
    return "AVX2";
#elif defined(__ARM_NEON)
    return "NEON";
#else
    return "no vector instructions known";
#endif
}

// How many values of k one row of packed bf16 weights holds.
int64_t lc_bf16_depth(void) { return Product<bf16>::DEPTH; }

// tokens -> logits (n_logits, vocabulary); adds the keys and values of the tokens to the cache. With `sampling_call` (may
// be null), logits are computed for all n rows and decoding continues; afterwards `ids` and `positions` are those of the
// next token.
void lc_forward(const Model* model, const Tokens* tokens, float* logits, float* scratch, int64_t threads,
                const SamplingCall* sampling_call) {
    const auto pass = model->weights_are_bf16 ? model->cache_kind == CACHE_INT8   ? forward<bf16, int8_t>
                                                : model->cache_kind == CACHE_BF16 ? forward<bf16, bf16>
                                                                                  : forward<bf16, float>
                      : model->cache_kind == CACHE_INT8 ? forward<float, int8_t>
                                                        : forward<float, float>;
    pass(*model, *tokens, logits, scratch, int(threads), sampling_call);
}

// One token for each of n rows of logits, `width` numbers apart.
void lc_sample(const float* logits, int64_t n, int64_t width, const SamplingCall* sampling_call) {
    for (int64_t line = 0; line < n; line++)
        sampling_call->tokens[line] = sample(logits + line * width, sampling_call->vocabulary,
                                             sampling_call->settings[line], sampling_call->uniforms[line]);
}
}
