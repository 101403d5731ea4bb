// A team of threads inside one parallel region: a barrier between phases, and who does which part of the work.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstddef>
#include <vector>

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

// Tasks that threads take one by one: each its own share first, which is still in its caches, then what the others have
// not begun. A core that is slower, or busy with something else, so computes less instead of being waited for.
//
// A loop has a counter for each thread. Counters are used again ROUND loops later; every thread clears those of a loop that no
// thread can be in, which holds if there is a barrier among any ROUND / 2 loops.
class WorkQueues {
  public:
    static constexpr size_t ROUND = 8;

    explicit WorkQueues(int threads) : threads_(threads), counters_(ROUND * size_t(threads)) {}

    // Calls `work(i)` for the tasks of [0, count) that this thread gets in its `loop`-th loop.
    template <class Work> void for_each(size_t count, int thread, size_t loop, const Work& work) {
        counter(loop + ROUND / 2, thread).store(0, std::memory_order_relaxed);
        for (int other = 0; other < threads_; other++) {
            const int owner = thread + other < threads_ ? thread + other : thread + other - threads_;
            const Share of = share(count, owner, threads_, 1);
            auto next = [&] { return of.begin + counter(loop, owner).fetch_add(1, std::memory_order_relaxed); };
            for (size_t i = next(); i < of.end; i = next()) work(i);
        }
    }

  private:
    struct alignas(64) Counter {
        std::atomic<size_t> value{0};
    };
    int threads_;
    std::vector<Counter> counters_;

    std::atomic<size_t>& counter(size_t loop, int thread) {
        return counters_[loop % ROUND * size_t(threads_) + size_t(thread)].value;
    }
};
