/* stack.h: kernels keep their blocks on the stack, and a thread that somebody else made may have too little of it. */
#ifndef DTD_STACK_H
#define DTD_STACK_H

enum {
    DTD_STACK = 1 << 21,      /* bytes of a thread that dtdfast makes: musl's own choice, 128 KiB, is too little */
    DTD_STACK_NEED = 1 << 19, /* more than what kernels use: linear.c, 265 KiB for doubles on avx512, has the most */
};

int dtd_stack_suffices(void); /* whether the thread that calls has DTD_STACK_NEED left; yes where nothing tells */

/* run(job) on a thread of its own, which ends before this returns; not 0 where none can be started. */
int dtd_run_aside(void (*run)(void *job), void *job);

#endif
