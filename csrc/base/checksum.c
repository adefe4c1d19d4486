/* checksum.c: a checksum of memory, which tells whether it was changed since. */
#include "dtdfast.h"
#include "parallel.h"

enum {
    PAIRS = 1 << 16, /* of a thread's range at least */
    LINE = 4,        /* pairs in a cache line */
    AHEAD = 128      /* words */
};

typedef struct {
    const uint64_t *words;
    _Atomic uint64_t sum;
} checksum_job;

/* The 128 bits of a product, folded: every bit depends on all of both words, and on their place. */
static inline uint64_t folded(const uint64_t *words, int64_t pair)
{
    uint64_t place = (uint64_t)(pair + 1) * UINT64_C(0x9E3779B97F4A7C15);
    unsigned __int128 product = (unsigned __int128)(words[2 * pair] ^ place) * (words[2 * pair + 1] + place);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static void checksum_range(void *given, int64_t first, int64_t last)
{
    checksum_job *job = given;
    uint64_t sum = 0;
    int64_t i = first;
    for (; i + LINE <= last; i += LINE) {
        __builtin_prefetch(job->words + 2 * i + AHEAD); /* or the products wait for memory: twice the time */
        for (int64_t k = 0; k < LINE; k++)
            sum += folded(job->words, i + k);
    }
    for (; i < last; i++)
        sum += folded(job->words, i);
    job->sum += sum; /* modulo 2^64, so that the order of ranges makes no difference */
}

uint64_t dtd_checksum(const void *pairs, int64_t n_pairs, int n_threads)
{
    checksum_job job = {pairs, 0};
    dtd_parallel(n_threads, n_pairs, PAIRS, checksum_range, &job);
    return job.sum;
}
