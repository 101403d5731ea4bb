// Training on a CPU, with matrix products in float32 or bfloat16: forward and backward of whole transformer blocks (`cpu_block.py`) and of the loss
// (`cpu_loss.py`).
#include <omp.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include "block.hpp"
#include "loss.hpp"

namespace {

// Denormal numbers count as zero while this lives, as they do in products in bfloat16: each would take about a hundred cycles.
class NoDenormals {
#if defined(__SSE2__)
    const unsigned before_ = _mm_getcsr();

  public:
    NoDenormals() { _mm_setcsr(before_ | 0x8040); }  // flush to zero, denormals are zero
    ~NoDenormals() { _mm_setcsr(before_); }
#else
  public:
    NoDenormals() {}
#endif
    NoDenormals(const NoDenormals&) = delete;
};

template <class N, class Work> void in_team(int threads, const Work& work) {
    Barrier barrier;
    WorkQueues queues(threads);
#pragma omp parallel num_threads(threads)
    {
        [[maybe_unused]] const NoDenormals no_denormals;
        [[maybe_unused]] const typename N::Registers registers{};
        work(Team{omp_get_thread_num(), omp_get_num_threads(), barrier, queues});
    }
}

// Calls `work` with `Single`, or in bfloat16 with what this processor has: `Tiles` or `Pairs`.
template <class Work> auto with_numbers(bool bfloat16, const Work& work) {
#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
    if (bfloat16 && Tiles::allowed()) return work(Tiles{});
#endif
#if defined(__AVX512BF16__)
    if (bfloat16) return work(Pairs{});
#endif
    return work(Single{});
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
    return with_numbers(block->bfloat16, [&](auto number) {
        return int64_t(Scratch<decltype(number)>(*block, int(threads), backward != 0).total);
    });
}

// Which products can be computed in bfloat16: 0 none, 1 all, 2 all but attention's.
int64_t lc_train_has_bfloat16(void) {
    return with_numbers(true, [](auto number) {
        using N = decltype(number);
        return int64_t(N::PER_WORD == 1 ? 0 : N::InRegisters::PER_WORD == N::PER_WORD ? 1 : 2);
    });
}

// Sizes of matrices must be multiples of this.
int64_t lc_train_multiple(void) { return NR; }

// x (tokens, width) -> out (tokens, width), and what the backward pass reads.
void lc_block_forward(const Block* block, const Kept* kept, const float* x, float* out, float* scratch, int64_t threads) {
    with_numbers(block->bfloat16, [&](auto number) {
        in_team<decltype(number)>(int(threads), [&](const Team& team) {
            BlockPass<decltype(number)>(*block, *kept, x, scratch, false, team).forward(out);
        });
    });
}

// Gradient of `out` -> gradient of x and of every weight. Once per forward pass: `kept` is changed.
void lc_block_backward(const Block* block, const Kept* kept, const float* x, const float* gradient, float* x_gradient,
                       const BlockGradient* to, float* scratch, int64_t threads) {
    with_numbers(block->bfloat16, [&](auto number) {
        in_team<decltype(number)>(int(threads), [&](const Team& team) {
            BlockPass<decltype(number)>(*block, *kept, x, scratch, true, team).backward(gradient, x_gradient, *to);
        });
    });
}

int64_t lc_loss_scratch(int64_t n, int64_t width, int64_t vocabulary, int64_t threads, int64_t backward, int64_t bfloat16) {
    return with_numbers(bfloat16, [&](auto number) {
        return int64_t(LossSizes<decltype(number)>(n, width, vocabulary, int(threads), backward != 0).total);
    });
}

// hidden (n, width), head (vocabulary, width), targets (n,) -> losses (n,), 0 where the target is `ignored`, and the logits'
// gradient of their sum in `logits` (n, vocabulary). Targets are below `vocabulary`.
void lc_loss_forward(const float* hidden, const float* head, const int64_t* targets, int64_t ignored, int64_t n,
                     int64_t width, int64_t vocabulary, float* logits, float* losses, float* scratch, int64_t threads,
                     int64_t bfloat16) {
    with_numbers(bfloat16, [&](auto number) {
        const LossSizes<decltype(number)> sizes(n, width, vocabulary, int(threads), false);
        in_team<decltype(number)>(int(threads), [&](const Team& team) {
            loss_forward<decltype(number)>(team, sizes, hidden, head, targets, ignored, logits, losses, scratch);
        });
    });
}

// `slopes` is what the forward pass left in `logits`. With `add` the head's gradient is added to what is there.
void lc_loss_backward(const float* hidden, const float* head, const float* slopes, double scale, int64_t n, int64_t width,
                      int64_t vocabulary, float* hidden_gradient, float* head_gradient, float* scratch, int64_t threads,
                      int64_t bfloat16, int64_t add) {
    with_numbers(bfloat16, [&](auto number) {
        const LossSizes<decltype(number)> sizes(n, width, vocabulary, int(threads), true);
        in_team<decltype(number)>(int(threads), [&](const Team& team) {
            loss_backward<decltype(number)>(team, sizes, hidden, head, slopes, float(scale), hidden_gradient, head_gradient,
                                            add != 0, scratch);
        });
    });
}
}
