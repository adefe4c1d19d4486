/* parallel.h: loops on several threads. */
#ifndef DTD_PARALLEL_H
#define DTD_PARALLEL_H

#include <stdint.h>

/* Items first .. last-1 of the work described by `job`. */
typedef void (*dtd_task)(void *job, int64_t first, int64_t last);

/* Run the items in contiguous ranges, of at least `grain` items each, on up to n_threads threads; a single range on the
 * caller alone. */
int dtd_thread(void); /* the number of the thread that runs a task */

void dtd_parallel(int n_threads, int64_t n_items, int64_t grain, dtd_task task, void *job);

#endif
