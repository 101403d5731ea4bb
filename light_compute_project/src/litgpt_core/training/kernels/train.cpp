// Training on a CPU, with matrix products in float32 or bfloat16: forward and backward of whole transformer blocks (`cpu_block.py`) and of the loss
// (`cpu_loss.py`).
#include <omp.h>

#include "block.hpp"
#include "loss.hpp"

namespace {

template <class Work> void in_team(int threads, const Work& work) {
    Barrier barrier;
#pragma omp parallel num_threads(threads)
    work(Team{omp_get_thread_num(), omp_get_num_threads(), barrier});
}

// Calls `work` with `Single`, or with `Pairs` where this processor has them.
template <class Work> void with_numbers(bool bfloat16, const Work& work) {
#if defined(__AVX512BF16__)
    if (bfloat16) return work(Pairs{});
#endif
    work(Single{});
}

}  // namespace

extern "C" {

// The sizes of the structs that ctypes mirrors.
void lc_train_struct_sizes(int64_t* sizes) {
    const int64_t found[] = {sizeof(Block), sizeof(BlockGradient), sizeof(Kept)};
    std::memcpy(sizes, found, sizeof found);
}

// Floats of scratch memory.
int64_t lc_train_scratch(const Block* block, int64_t threads, int64_t backward) {
    return int64_t(Scratch(*block, int(threads), backward != 0).total);
}

// Whether products can be computed in bfloat16.
int64_t lc_train_has_bfloat16(void) {
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}

// Sizes of matrices must be multiples of this.
int64_t lc_train_multiple(void) { return NR; }

// x (tokens, width) -> out (tokens, width), and what the backward pass reads.
void lc_block_forward(const Block* block, const Kept* kept, const float* x, float* out, float* scratch, int64_t threads) {
    with_numbers(block->bfloat16, [&](auto number) {
        in_team(int(threads), [&](const Team& team) {
            BlockPass<decltype(number)>(*block, *kept, x, scratch, false, team).forward(out);
        });
    });
}

// Gradient of `out` -> gradient of x and of every weight. Once per forward pass: `kept` is changed.
void lc_block_backward(const Block* block, const Kept* kept, const float* x, const float* gradient, float* x_gradient,
                       const BlockGradient* to, float* scratch, int64_t threads) {
    with_numbers(block->bfloat16, [&](auto number) {
        in_team(int(threads), [&](const Team& team) {
            BlockPass<decltype(number)>(*block, *kept, x, scratch, true, team).backward(gradient, x_gradient, *to);
        });
    });
}

int64_t lc_loss_scratch(int64_t n, int64_t width, int64_t vocabulary, int64_t threads, int64_t backward) {
    return int64_t(LossSizes(n, width, vocabulary, int(threads), backward != 0).total);
}

// hidden (n, width), head (vocabulary, width), targets (n,) -> losses (n,), 0 where the target is `ignored`, and the logits'
// gradient of their sum in `logits` (n, vocabulary). Targets are below `vocabulary`.
void lc_loss_forward(const float* hidden, const float* head, const int64_t* targets, int64_t ignored, int64_t n,
                     int64_t width, int64_t vocabulary, float* logits, float* losses, float* scratch, int64_t threads,
                     int64_t bfloat16) {
    const LossSizes sizes(n, width, vocabulary, int(threads), false);
    with_numbers(bfloat16, [&](auto number) {
        in_team(int(threads), [&](const Team& team) {
            loss_forward<decltype(number)>(team, sizes, hidden, head, targets, ignored, logits, losses, scratch);
        });
    });
}

// `slopes` is what the forward pass left in `logits`. With `add` the head's gradient is added to what is there.
void lc_loss_backward(const float* hidden, const float* head, const float* slopes, double scale, int64_t n, int64_t width,
                      int64_t vocabulary, float* hidden_gradient, float* head_gradient, float* scratch, int64_t threads,
                      int64_t bfloat16, int64_t add) {
    const LossSizes sizes(n, width, vocabulary, int(threads), true);
    with_numbers(bfloat16, [&](auto number) {
        in_team(int(threads), [&](const Team& team) {
            loss_backward<decltype(number)>(team, sizes, hidden, head, slopes, float(scale), hidden_gradient, head_gradient,
                                            add != 0, scratch);
        });
    });
}
}
