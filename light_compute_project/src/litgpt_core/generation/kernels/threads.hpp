// A team of threads inside one parallel region: a barrier between phases, and who does which part of the work.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstddef>

// Spins, because the next phase starts within microseconds; yields if another thread was descheduled.
class Barrier {
  public:
    void wait(int threads) {
        if (threads == 1) return;
        const int round = round_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
            arrived_.store(0, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; round_.load(std::memory_order_acquire) == round; spins++)
            if (spins > 20000) sched_yield();
    }

  private:
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<int> round_{0};
};

struct Share {
    size_t begin, end;
};

// The part of [0, total) that belongs to a thread, in multiples of `grain`.
static inline Share share(size_t total, int thread, int threads, size_t grain) {
    const size_t grains = (total + grain - 1) / grain;
    const size_t begin = grains * thread / threads * grain, end = grains * (thread + 1) / threads * grain;
    return {begin < total ? begin : total, end < total ? end : total};
}
