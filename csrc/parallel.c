#include "parallel.h"

#ifdef _OPENMP
#include <omp.h>
#endif

void dtd_parallel(int n_threads, int64_t n_items, int64_t grain, dtd_task task, void *job)
{
    int64_t most = n_items / (grain > 0 ? grain : 1);
    if (n_threads > most)
        n_threads = (int)most;
#ifdef _OPENMP
    if (n_threads > 1) {
#pragma omp parallel num_threads(n_threads)
        {
            int64_t t = omp_get_thread_num(), n = omp_get_num_threads(); /* n may be less than asked for */
            int64_t first = n_items * t / n, last = n_items * (t + 1) / n;
            if (first < last)
                task(job, first, last);
        }
        return;
    }
#endif
    if (n_items > 0)
        task(job, 0, n_items);
}
