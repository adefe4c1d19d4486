/* kernel_runner.c: runs steps sent over a pipe, so that kernels of another machine's instructions can be tested under
 * an emulator.
 *
 * Request: int64 {bytes of a step, isa, real, n_threads, n_steps, n_blocks, bytes of each block}, the steps, the
 * blocks. Answer: int64 {length of the message of a step that is refused, else 0}, the message, the blocks as they are
 * then.  Ends with its input.
 */
#include "dtdfast.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#endif

enum { MOST_BLOCKS = 16, MOST_STEPS = 1 + DTD_MOST_SLICED };

static int64_t number(void)
{
    int64_t value;
    if (fread(&value, sizeof value, 1, stdin) != 1)
        exit(0);
    return value;
}

int main(void)
{
#ifdef _WIN32
    _setmode(0, _O_BINARY), _setmode(1, _O_BINARY);
#endif
    for (;;) {
        if (number() != dtd_step_size())
            return 2;
        int isa = (int)number(), real = (int)number(), n_threads = (int)number(), n_steps = (int)number(),
            n_blocks = (int)number();
        int64_t size[MOST_BLOCKS];
        void *bases[MOST_BLOCKS + 1] = {NULL}, **block = bases + 1; /* no scratch memory */
        dtd_step steps[MOST_STEPS];
        for (int i = 0; i < n_blocks; i++)
            size[i] = number();
        if (fread(steps, sizeof *steps, (size_t)n_steps, stdin) != (size_t)n_steps)
            return 3;
        for (int i = 0; i < n_blocks; i++) {
            block[i] = malloc((size_t)size[i]);
            if (!block[i] || fread(block[i], 1, (size_t)size[i], stdin) != (size_t)size[i])
                return 4;
        }
        const char *message = dtd_run(isa, real, steps, 0, n_steps, bases, n_threads, NULL);
        int64_t length = message ? (int64_t)strlen(message) : 0;
        fwrite(&length, sizeof length, 1, stdout);
        if (message)
            fwrite(message, 1, (size_t)length, stdout);
        for (int i = 0; i < n_blocks; i++) {
            fwrite(block[i], 1, (size_t)size[i], stdout);
            free(block[i]);
        }
        fflush(stdout);
    }
}
