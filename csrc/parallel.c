#include "parallel.h"

#ifdef _OPENMP
#include <omp.h>
#endif

/* Ranges per thread: enough that a thread which lost its core for a while holds up no other for long. */
enum { RANGES = 8 };

int dtd_thread(void)
{
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

void dtd_parallel(int n_threads, int64_t n_items, int64_t grain, dtd_task task, void *job)
{
    int64_t most = n_items / (grain > 0 ? grain : 1); /* ranges of at least `grain` items */
#ifdef _OPENMP
    if (n_threads > 1 && most > 1) {
        int64_t ranges = (int64_t)n_threads * RANGES;
        if (ranges > most)
            ranges = most;
        if (n_threads > ranges)
            n_threads = (int)ranges;
#pragma omp parallel for num_threads(n_threads) schedule(dynamic, 1)
        for (int64_t r = 0; r < ranges; r++)
            task(job, n_items * r / ranges, n_items * (r + 1) / ranges);
        return;
    }
#else
    (void)n_threads, (void)most;
#endif
    if (n_items > 0)
        task(job, 0, n_items);
}
