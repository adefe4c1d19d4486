/* parallel.h: loops on several threads. */
#ifndef DTD_PARALLEL_H
#define DTD_PARALLEL_H

#include <stdint.h>

/* Items first .. last-1 of the work described by `job`. */
typedef void (*dtd_task)(void *job, int64_t first, int64_t last);

int dtd_thread(void); /* the number of the thread that runs a task */

/* Run the items in contiguous ranges, of at least `grain` items each, on up to n_threads threads; a single range on the
 * caller alone. */
void dtd_parallel(int n_threads, int64_t n_items, int64_t grain, dtd_task task, void *job);

/* Ranges of such a loop: several per thread, so that a thread which lost its core for a while holds up no other for
 * long; at least `grain` items each; one where that leaves no choice. */
static inline int64_t count_ranges(int n_threads, int64_t n_items, int64_t grain)
{
    const int64_t most = n_items / (grain > 0 ? grain : 1), wanted = n_threads > 1 ? (int64_t)n_threads * 8 : 1;
    return most < 1 ? 1 : wanted < most ? wanted : most;
}

/* How a thread rounds. torch.set_flush_denormal and libraries of -ffast-math have small numbers flushed to 0 on the
 * thread that calls them; those that share a loop would not agree. */
#if defined(__SSE__)
#include <xmmintrin.h>
enum { DTD_PLAIN = 0x1F80 };
static inline uint64_t rounding(void) { return _mm_getcsr() & ~0x3Fu; }
static inline void round_as(uint64_t how) { _mm_setcsr((unsigned)how); }
#else
enum { DTD_PLAIN = 0 };
static inline uint64_t rounding(void)
{
    uint64_t how = DTD_PLAIN;
#if defined(__aarch64__)
    __asm__ volatile("mrs %0, fpcr" : "=r"(how));
#endif
    return how;
}
static inline void round_as(uint64_t how)
{
#if defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(how));
#else
    (void)how;
#endif
}
#endif

/* A task on whatever thread this is. */
static inline void run_range(dtd_task task, void *job, int64_t first, int64_t last)
{
    const uint64_t before = rounding();
    if (before != DTD_PLAIN)
        round_as(DTD_PLAIN);
    task(job, first, last);
    if (before != DTD_PLAIN)
        round_as(before);
}

#endif
