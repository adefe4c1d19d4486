/* parallel.c: loops on several threads by OpenMP; the only file that calls it.  team.c stands in its place where there
 * is none. */
#define _GNU_SOURCE /* nanosleep, pthreads */
#include "parallel.h"

#include "dtdfast.h"
#include "stack.h"

#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

enum {
    RECORDS = 1 << 10 /* bytes, at most, that OpenMP keeps of each thread of a team, and eight times of the team */
};

/* Threads that OpenMP keeps for the thread that calls, itself included: what its last region had. */
static _Thread_local int at_hand = 1;
static _Thread_local int stranded; /* OpenMP still waits for threads that this forked child does not have */
static _Atomic int cramped;        /* OMP_STACKSIZE or a limit leave threads of OpenMP too little stack for kernels */

/* A child has the thread that forked and no other, and GNU's OpenMP would wait for those that it kept: so they end
 * before a fork, whoever made it start them. */
static void end_threads(void)
{
#if _OPENMP >= 201811 || __GNUC__ >= 9
    if (!omp_pause_resource_all(omp_pause_soft))
        at_hand = 1;
#endif
}

static void look_back(void) { stranded = at_hand > 1; }

__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(end_threads, NULL, look_back); }

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t opened;
    int open;
} gate;

static void *wait_at(void *context)
{
    gate *g = context;
    pthread_mutex_lock(&g->lock);
    while (!g->open)
        pthread_cond_wait(&g->opened, &g->lock);
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

/* Threads of this process, 0 where the system does not say. */
static long count_threads(void)
{
    struct stat tasks;
    return stat("/proc/self/task", &tasks) ? 0 : (long)tasks.st_nlink;
}

/* How many of `wanted` threads can be started beside the `kept` ones; negative where OpenMP would find no memory for
 * its records of them. */
static int startable(int wanted, int kept)
{
    gate g = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
    pthread_t *threads = malloc((size_t)(wanted + kept + 8) * (sizeof *threads + RECORDS));
    if (!threads)
        return -1;
    const long before = count_threads();
    int started = 0;
    while (started < wanted && !pthread_create(&threads[started], NULL, wait_at, &g))
        started++;
    pthread_mutex_lock(&g.lock);
    g.open = 1;
    pthread_cond_broadcast(&g.opened);
    pthread_mutex_unlock(&g.lock);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    /* joined is not yet gone: the system counts a thread against the limits for a moment more */
    const struct timespec moment = {0, 50000};
    for (int i = 0; i < 400 && count_threads() > before; i++)
        nanosleep(&moment, NULL);
    return started;
}

int dtd_thread(void) { return omp_get_thread_num(); }

int dtd_max_threads(void) { return omp_get_max_threads(); }

int dtd_openmp_version(void) { return _OPENMP; }

int dtd_secure_threads(int n_threads)
{
    if (n_threads == at_hand || stranded || cramped)
        return stranded || cramped ? 1 : n_threads;
    const int more = n_threads < at_hand ? 0 : n_threads - at_hand, started = startable(more, n_threads - more);
    /* at the limit, half of what is left stays for others: they may ask between now and the region */
    const int found = started == more ? n_threads : started < 0 ? 1 : at_hand + started / 2;
    if (found > 1) { /* started now: small networks have no region that would, and would be asked about in every call */
#pragma omp parallel num_threads(found)
        if (dtd_thread() && !dtd_stack_suffices())
            cramped = 1;
        at_hand = found;
    }
    return cramped ? 1 : found;
}

/* A region has n_threads threads even for fewer ranges: OpenMP ends those that a region leaves out, and would have to
 * start them again. */
void dtd_parallel(int n_threads, int64_t n_items, int64_t grain, dtd_task task, void *job)
{
    const int64_t ranges = count_ranges(n_threads, n_items, grain);
    if (ranges > 1) {
#pragma omp parallel for num_threads(n_threads) schedule(dynamic, 1)
        for (int64_t r = 0; r < ranges; r++)
            run_range(task, job, n_items * r / ranges, n_items * (r + 1) / ranges);
        at_hand = n_threads;
    } else if (n_items > 0) {
        run_range(task, job, 0, n_items);
    }
}
