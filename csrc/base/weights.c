/* weights.c: weights in the order and type that kernels read. */
#include "dtdfast.h"
#include "parallel.h"

#include <string.h>

enum {
    CHUNK = 256,    /* inputs of an item */
    GRAIN = 1 << 16 /* numbers of a thread's range at least */
};

typedef struct {
    const dtd_packing *p;
    int64_t blocks, chunks;
    _Atomic int overflow;
} pack_job;

/* packed[lane] = weight[lane · step] for the first n lanes, 0 for the others; whether one is NaN or infinite */
#define PACK(name, from_t, to_t, bits_t, exponent)                                                                     \
    static inline int name##_lanes(const from_t *from, int64_t step, to_t *to, int64_t n, int64_t lanes)               \
    {                                                                                                                  \
        bits_t bits, infinite = 0;                                                                                     \
        for (int64_t lane = 0; lane < n; lane++) {                                                                     \
            to[lane] = (to_t)from[lane * step];                                                                        \
            memcpy(&bits, to + lane, sizeof bits);                                                                     \
            infinite |= (bits & (exponent)) == (exponent);                                                             \
        }                                                                                                              \
        for (int64_t lane = n; lane < lanes; lane++)                                                                   \
            to[lane] = 0;                                                                                              \
        return infinite != 0;                                                                                          \
    }                                                                                                                  \
                                                                                                                       \
    static int name(const dtd_packing *p, int64_t group, int64_t block, int64_t blocks, int64_t first, int64_t last)   \
    {                                                                                                                  \
        const int64_t output = block * p->lanes, left = p->outputs - output, n = left < p->lanes ? left : p->lanes;    \
        const from_t *from = (const from_t *)p->weight + group * p->group_step + output * p->output_step;              \
        to_t *to = (to_t *)p->packed + (group * blocks + block) * p->n_taps * p->inputs * p->lanes;                    \
        int infinite = 0;                                                                                              \
        if (p->lanes == 1 && p->n_taps == 1 && p->input_step == 1) /* rows: along the inputs */                        \
            return name##_lanes(from + p->taps[0] + first, 1, to + first, last - first, last - first);                 \
        for (int64_t i = first; i < last; i++)                                                                         \
            for (int64_t t = 0; t < p->n_taps; t++) {                                                                  \
                const from_t *x = from + i * p->input_step + p->taps[t];                                               \
                to_t *y = to + (t * p->inputs + i) * p->lanes;                                                         \
                infinite |= n == DTD_BLOCK ? name##_lanes(x, p->output_step, y, DTD_BLOCK, DTD_BLOCK)                  \
                                           : name##_lanes(x, p->output_step, y, n, p->lanes);                          \
            }                                                                                                          \
        return infinite;                                                                                               \
    }

PACK(pack_ff, float, float, uint32_t, UINT32_C(0x7F800000))
PACK(pack_fd, float, double, uint64_t, UINT64_C(0x7FF0000000000000))
PACK(pack_df, double, float, uint32_t, UINT32_C(0x7F800000))
PACK(pack_dd, double, double, uint64_t, UINT64_C(0x7FF0000000000000))

static void pack_range(void *given, int64_t first, int64_t last)
{
    static int (*const bodies[DTD_N_REALS][DTD_N_REALS])(const dtd_packing *, int64_t, int64_t, int64_t, int64_t,
                                                         int64_t) = {{pack_ff, pack_fd}, {pack_df, pack_dd}};
    pack_job *job = given;
    const dtd_packing *p = job->p;
    int infinite = 0;
    for (int64_t item = first; item < last; item++) {
        const int64_t chunk = item % job->chunks, block = item / job->chunks % job->blocks;
        const int64_t begin = chunk * CHUNK, end = begin + CHUNK < p->inputs ? begin + CHUNK : p->inputs;
        infinite |=
            bodies[p->weight_real][p->packed_real](p, item / job->chunks / job->blocks, block, job->blocks, begin, end);
    }
    if (infinite)
        job->overflow = 1;
}

int dtd_pack(const dtd_packing *p, int n_threads)
{
    pack_job job = {p, (p->outputs + p->lanes - 1) / p->lanes, (p->inputs + CHUNK - 1) / CHUNK, 0};
    const int64_t numbers = p->lanes * p->n_taps * (p->inputs < CHUNK ? p->inputs : CHUNK);
    dtd_parallel(n_threads, p->groups * job.blocks * job.chunks, 1 + GRAIN / (1 + numbers), pack_range, &job);
    return !job.overflow;
}
