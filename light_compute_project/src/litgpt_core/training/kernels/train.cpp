// Training in float32 on a CPU: forward and backward of whole transformer blocks (`cpu_block.py`) and of the loss
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

// Sizes of matrices must be multiples of this.
int64_t lc_train_multiple(void) { return NR; }

// x (tokens, width) -> out (tokens, width), and what the backward pass reads.
void lc_block_forward(const Block* block, const Kept* kept, const float* x, float* out, float* scratch, int64_t threads) {
    in_team(int(threads), [&](const Team& team) { BlockPass(*block, *kept, x, scratch, false, team).forward(out); });
}

// Gradient of `out` -> gradient of x and of every weight. Once per forward pass: `kept` is changed.
void lc_block_backward(const Block* block, const Kept* kept, const float* x, const float* gradient, float* x_gradient,
                       const BlockGradient* to, float* scratch, int64_t threads) {
    in_team(int(threads), [&](const Team& team) {
        BlockPass(*block, *kept, x, scratch, true, team).backward(gradient, x_gradient, *to);
    });
}

int64_t lc_loss_scratch(int64_t n, int64_t width, int64_t vocabulary, int64_t threads, int64_t backward) {
    return int64_t(LossSizes(n, width, vocabulary, int(threads), backward != 0).total);
}

// hidden (n, width), head (vocabulary, width), targets (n,) -> losses (n,), 0 where the target is `ignored`, and the logits'
// gradient of their sum in `logits` (n, vocabulary). Targets are below `vocabulary`.
void lc_loss_forward(const float* hidden, const float* head, const int64_t* targets, int64_t ignored, int64_t n,
                     int64_t width, int64_t vocabulary, float* logits, float* losses, float* scratch, int64_t threads) {
    const LossSizes sizes(n, width, vocabulary, int(threads), false);
    in_team(int(threads), [&](const Team& team) {
        loss_forward(team, sizes, hidden, head, targets, ignored, logits, losses, scratch);
    });
}

// `slopes` is what the forward pass left in `logits`.
void lc_loss_backward(const float* hidden, const float* head, const float* slopes, double scale, int64_t n, int64_t width,
                      int64_t vocabulary, float* hidden_gradient, float* head_gradient, float* scratch, int64_t threads) {
    const LossSizes sizes(n, width, vocabulary, int(threads), true);
    in_team(int(threads), [&](const Team& team) {
        loss_backward(team, sizes, hidden, head, slopes, float(scale), hidden_gradient, head_gradient, scratch);
    });
}
}
