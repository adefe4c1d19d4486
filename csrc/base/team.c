/* team.c: loops on several threads without OpenMP: where a compiler has none, and where a tool must see every lock.
 *
 * Every thread that calls has a team of its own, as under OpenMP.  Its members and the thread itself take ranges until
 * none is left, and the members sleep until the next region.  A forked child has none of them, and starts others. */
#define _GNU_SOURCE /* pthreads */
#include "parallel.h"

#include "dtdfast.h"
#include "stack.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* Looks before a thread sleeps: some tens of microseconds, since the steps of a plan follow each other. */
enum { LOOKS = 1 << 15, MOST_THREADS = 1024 };

typedef struct team {
    pthread_mutex_t lock;
    pthread_cond_t opened, left;
    _Atomic uint64_t region; /* counts regions; a member works once in each */
    _Atomic int inside;      /* members that have not left the region */
    int over;                /* the leader ends */
    _Atomic int ends;        /* still to come, of its threads: the last one frees it */
    int forks;               /* of the process, when the team was made */
    int members;
    int at_work; /* members with a smaller number work in this region */
    dtd_task task;
    void *job;
    int64_t n_items, ranges;
    _Atomic int64_t next; /* range */
    struct member {
        struct team *team;
        int number;
    } member[MOST_THREADS];
} team;

static _Thread_local int number; /* of this thread in its team; the leader's is 0 */
static _Thread_local team *own;
static _Atomic int forks;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t leader; /* its destructor ends the team of a thread that ends */

int dtd_thread(void) { return number; }

static void take_ranges(team *t)
{
    for (int64_t r; (r = atomic_fetch_add(&t->next, 1)) < t->ranges;)
        run_range(t->task, t->job, t->n_items * r / t->ranges, t->n_items * (r + 1) / t->ranges);
}

static void leave(team *t)
{
    if (atomic_fetch_sub(&t->ends, 1) > 1)
        return;
    pthread_cond_destroy(&t->opened);
    pthread_cond_destroy(&t->left);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static void *work(void *context)
{
    struct member *m = context;
    team *t = m->team;
    number = m->number;
    for (uint64_t seen = 0;;) {
        for (int i = 0; i < LOOKS && atomic_load(&t->region) == seen; i++)
            ;
        pthread_mutex_lock(&t->lock);
        while (atomic_load(&t->region) == seen && !t->over)
            pthread_cond_wait(&t->opened, &t->lock);
        const int over = t->over, works = m->number <= t->at_work;
        seen = atomic_load(&t->region);
        pthread_mutex_unlock(&t->lock);
        if (over) {
            leave(t);
            return NULL;
        }
        if (!works)
            continue;
        take_ranges(t);
        pthread_mutex_lock(&t->lock);
        if (!--t->inside)
            pthread_cond_signal(&t->left);
        pthread_mutex_unlock(&t->lock);
    }
}

/* Its members end by themselves: Windows calls this under a lock that each of them needs to end. */
static void end_team(void *context)
{
    team *t = context;
    if (t->forks != atomic_load(&forks))
        return; /* another process's threads wait there */
    pthread_mutex_lock(&t->lock);
    t->over = 1;
    pthread_cond_broadcast(&t->opened);
    pthread_mutex_unlock(&t->lock);
    leave(t);
}

/* A child has the thread that forked and no other: its teams are gone.  Windows has no children of this kind. */
__attribute__((unused)) static void count_fork(void) { atomic_fetch_add(&forks, 1); }

static void prepare(void)
{
    pthread_atfork(NULL, NULL, count_fork);
    pthread_key_create(&leader, end_team);
}

/* This thread's team, of n_threads with the leader or of as many as can be started; NULL without memory. */
static team *muster(int n_threads)
{
    pthread_once(&once, prepare);
    team *t = own;
    if (!t || t->forks != atomic_load(&forks)) {
        t = calloc(1, sizeof *t);
        if (!t)
            return NULL;
        pthread_mutex_init(&t->lock, NULL);
        pthread_cond_init(&t->opened, NULL);
        pthread_cond_init(&t->left, NULL);
        t->forks = atomic_load(&forks);
        t->ends = 1;
        own = t;
        pthread_setspecific(leader, t);
    }
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, DTD_STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    while (t->members < n_threads - 1 && t->members < MOST_THREADS) {
        struct member *m = &t->member[t->members];
        m->team = t;
        m->number = t->members + 1;
        atomic_fetch_add(&t->ends, 1);
        pthread_t thread;
        if (pthread_create(&thread, &attributes, work, m)) {
            atomic_fetch_sub(&t->ends, 1);
            break;
        }
        t->members++;
    }
    pthread_attr_destroy(&attributes);
    return t;
}

int dtd_max_threads(void) { return MOST_THREADS; }

int dtd_openmp_version(void) { return 0; }

int dtd_secure_threads(int n_threads)
{
    const team *t = n_threads > 1 ? muster(n_threads) : NULL;
    return !t ? 1 : n_threads < t->members + 1 ? n_threads : t->members + 1;
}

void dtd_parallel(int n_threads, int64_t n_items, int64_t grain, dtd_task task, void *job)
{
    const int64_t ranges = count_ranges(n_threads, n_items, grain);
    team *t = ranges > 1 ? muster(n_threads) : NULL;
    if (!t) {
        if (n_items > 0)
            run_range(task, job, 0, n_items);
        return;
    }
    pthread_mutex_lock(&t->lock);
    t->task = task, t->job = job, t->n_items = n_items, t->ranges = ranges;
    t->at_work = n_threads - 1 < t->members ? n_threads - 1 : t->members;
    t->inside = t->at_work;
    atomic_store(&t->next, 0);
    atomic_fetch_add(&t->region, 1);
    pthread_cond_broadcast(&t->opened);
    pthread_mutex_unlock(&t->lock);
    take_ranges(t);
    for (int i = 0; i < LOOKS && atomic_load(&t->inside); i++)
        ;
    pthread_mutex_lock(&t->lock);
    while (t->inside)
        pthread_cond_wait(&t->left, &t->lock);
    pthread_mutex_unlock(&t->lock);
}
