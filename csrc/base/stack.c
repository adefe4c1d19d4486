/* stack.c: what is left of a thread's stack, and a thread that has enough.
 *
 * Python's threads have what `threading.stack_size` says, or else the C library: 128 KiB on musl. */
#define _GNU_SOURCE /* pthread_getattr_np */
#include "stack.h"

#include <pthread.h>
#include <stdint.h>
#ifdef _WIN32
#include <windows.h>
#elif defined(__linux__)
#include <sys/auxv.h>
#include <sys/resource.h>
#endif

/* The lowest address that the stack of this thread may reach, 0 where nothing tells. */
static uintptr_t find_end(uintptr_t here)
{
#ifdef _WIN32
    ULONG_PTR end, start;
    (void)here;
    GetCurrentThreadStackLimits(&end, &start);
    return end;
#elif defined(__APPLE__)
    (void)here;
    return (uintptr_t)pthread_get_stackaddr_np(pthread_self()) - pthread_get_stacksize_np(pthread_self());
#elif defined(__linux__)
    /* The first stack grows up to a limit, and musl tells what it has now.  The path of the program is at its start,
     * and the system keeps this gap free of all else. */
    enum { GAP = 1 << 27 };
    const uintptr_t start = getauxval(AT_EXECFN);
    struct rlimit most;
    if (start > here && start - here < GAP) /* a larger limit is never used up */
        return !getrlimit(RLIMIT_STACK, &most) && most.rlim_cur < GAP ? start - most.rlim_cur : 0;
    pthread_attr_t attributes;
    void *end = NULL;
    size_t size;
    if (!pthread_getattr_np(pthread_self(), &attributes)) {
        pthread_attr_getstack(&attributes, &end, &size);
        pthread_attr_destroy(&attributes);
    }
    return (uintptr_t)end;
#else
    (void)here;
    return 0;
#endif
}

int dtd_stack_suffices(void)
{
    static _Thread_local uintptr_t end;
    static _Thread_local int known;
    const uintptr_t here = (uintptr_t)__builtin_frame_address(0); /* AddressSanitizer moves variables elsewhere */
    if (!known) {
        end = find_end(here);
        known = 1;
    }
    return here >= end + DTD_STACK_NEED;
}

typedef struct {
    void (*run)(void *job);
    void *job;
} errand;

static void *begin(void *context)
{
    const errand *e = context;
    e->run(e->job);
    return NULL;
}

int dtd_run_aside(void (*run)(void *job), void *job)
{
    errand e = {run, job};
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, DTD_STACK);
    const int failed = pthread_create(&thread, &attributes, begin, &e);
    pthread_attr_destroy(&attributes);
    if (!failed)
        pthread_join(thread, NULL);
    return failed;
}
