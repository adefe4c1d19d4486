/* rounding.h: a thread may flush small numbers to 0, by torch.set_flush_denormal or a library of -ffast-math, or round
 * in another direction; threads that share a loop would not agree. */
#ifndef DTD_ROUNDING_H
#define DTD_ROUNDING_H

#include <stdint.h>

#if defined(__SSE__)
#include <xmmintrin.h>

enum { DTD_ROUNDING = 0x1F80, DTD_FLAGS = 0x3F }; /* to nearest, nothing flushed or trapped; what happened so far */

static inline uint64_t read_rounding(void) { return _mm_getcsr() & ~(unsigned)DTD_FLAGS; }
static inline void set_rounding(uint64_t rounding) { _mm_setcsr((unsigned)rounding); }
#elif defined(__aarch64__)
enum { DTD_ROUNDING = 0 };

static inline uint64_t read_rounding(void)
{
    uint64_t rounding;
    __asm__ volatile("mrs %0, fpcr" : "=r"(rounding));
    return rounding;
}
static inline void set_rounding(uint64_t rounding) { __asm__ volatile("msr fpcr, %0" : : "r"(rounding)); }
#else
enum { DTD_ROUNDING = 0 };

static inline uint64_t read_rounding(void) { return DTD_ROUNDING; }
static inline void set_rounding(uint64_t rounding) { (void)rounding; }
#endif

/* IEEE's rounding for this thread; what it had before, for set_rounding. */
static inline uint64_t round_plainly(void)
{
    const uint64_t before = read_rounding();
    if (before != DTD_ROUNDING)
        set_rounding(DTD_ROUNDING);
    return before;
}

static inline void round_as(uint64_t before)
{
    if (before != DTD_ROUNDING)
        set_rounding(before);
}

#endif
