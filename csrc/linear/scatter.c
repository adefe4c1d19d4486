/* scatter.c: the transposed product of a fully connected layer, for few samples, on the record's own weight rows.
 *
 *     sum[n,i] = sum_j wm(w[j,i]) x[n,j]
 *
 * A thread owns chunks of inputs i.  The sums of a chunk stay in the cache while the rows j are read in order, a few at
 * a time.  A row is not read if its x is 0 for every sample (a dead unit): it would add exactly 0.
 */
#include "scatter.h"
#include "base/simd.h"

#if defined(__AVX512F__) || defined(__aarch64__)
enum { VECTORS_AT_ONCE = 4, SAMPLES = 6 };
#else
enum { VECTORS_AT_ONCE = 2, SAMPLES = 6 };
#endif

enum {
    CHUNK = 512, /* inputs of a chunk: half a page of a weight row */
    LEAST = 64,  /* inputs of a chunk at least, if there are fewer chunks than threads can share */
    CHUNKS_PER_THREAD = 2,
    ROWS = 256,  /* rows that are checked for zeros at once */
    AT_ONCE = 8, /* rows per load and store of the sums */
};

typedef struct {
    const real *w;  /* at the first input of the chunk */
    int64_t row, n; /* stride of w, inputs in this chunk */
    real gamma;
    int n_rows;
    const int64_t *rows;     /* the rows that count, AT_ONCE more that are only fetched ahead */
    const real *x;           /* of the first sample */
    int64_t sample, channel; /* strides of x */
    real (*sum)[CHUNK];      /* [sample] */
} scatter_tile;

/* Up to AT_ONCE rows onto VECTORS_AT_ONCE vectors of sums; `vectors`, `samples`, `map` and `full` are constants
 * wherever this is inlined.
 */
ALWAYS_INLINE void run_tile(const scatter_tile *t, int64_t i, int first, int last, const int vectors, const int samples,
                            const int map, const int full)
{
    vec a[VECTORS_AT_ONCE][SAMPLES];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++)
#pragma GCC unroll 6
        for (int m = 0; m < samples; m++)
            a[v][m] = load(t->sum[m] + i + v * VL);
    for (int k = first; k < last; k++) {
        const real *row = t->w + t->rows[k] * t->row + i, *ahead = t->w + t->rows[k + AT_ONCE] * t->row + i;
        vec x[SAMPLES];
#pragma GCC unroll 6
        for (int m = 0; m < samples; m++)
            x[m] = splat(t->x[t->rows[k] * t->channel + m * t->sample]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            __builtin_prefetch(ahead + v * VL);
            vec w = map_weight(map, full ? load(row + v * VL) : load_some(row + v * VL, t->n - i), t->gamma);
#pragma GCC unroll 6
            for (int m = 0; m < samples; m++)
                a[v][m] += x[m] * w;
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++)
#pragma GCC unroll 6
        for (int m = 0; m < samples; m++)
            store(t->sum[m] + i + v * VL, a[v][m]);
}

/* All rows of the tile onto all inputs of the chunk. */
ALWAYS_INLINE void run_chunk(const scatter_tile *t, const int samples, const int map)
{
    for (int first = 0; first < t->n_rows; first += AT_ONCE) {
        int last = first + AT_ONCE < t->n_rows ? first + AT_ONCE : t->n_rows;
        int64_t i = 0;
        for (; i + VECTORS_AT_ONCE * VL <= t->n; i += VECTORS_AT_ONCE * VL)
            run_tile(t, i, first, last, VECTORS_AT_ONCE, samples, map, 1);
        for (; i + VL <= t->n; i += VL)
            run_tile(t, i, first, last, 1, samples, map, 1);
        if (i < t->n)
            run_tile(t, i, first, last, 1, samples, map, 0);
    }
}

typedef void (*chunk_function)(const scatter_tile *t, int samples);

#define CHUNKS(map)                                                                                                    \
    static void chunk_##map(const scatter_tile *t, int samples)                                                        \
    {                                                                                                                  \
        switch (samples) {                                                                                             \
        case 1: run_chunk(t, 1, map); break;                                                                           \
        case 2: run_chunk(t, 2, map); break;                                                                           \
        case 3: run_chunk(t, 3, map); break;                                                                           \
        case 4: run_chunk(t, 4, map); break;                                                                           \
        case 5: run_chunk(t, 5, map); break;                                                                           \
        case 6: run_chunk(t, 6, map); break;                                                                           \
        }                                                                                                              \
    }

EACH_WEIGHT_MAP(CHUNKS)

#define ENTRY(map) [map] = chunk_##map,
static const chunk_function CHUNK_FUNCTIONS[] = {EACH_WEIGHT_MAP(ENTRY)};

/* ----------------------------------------------------------------------------------------------------------- driver */

/* counts[j] |= x[j] is not 0; `channel` is a constant where that helps */
ALWAYS_INLINE void mark(const real *x, int64_t channel, int64_t n, uint8_t *counts)
{
    for (int64_t j = 0; j < n; j++)
        counts[j] |= x[j * channel] != 0;
}

/* Of rows j0 .. j1-1, those with an x that is not 0 in any of the samples. */
static int find_rows(const dtd_step *s, const real *x, int64_t n_samples, int64_t j0, int64_t j1, int64_t *rows)
{
    const int64_t sample = s->x.stride[AXIS_N], channel = s->x.stride[AXIS_C];
    uint8_t counts[ROWS] = {0};
    int n = 0;
    for (int64_t m = 0; m < n_samples; m++)
        if (channel == 1)
            mark(x + m * sample + j0, 1, j1 - j0, counts);
        else
            mark(x + m * sample + j0 * channel, channel, j1 - j0, counts);
    for (int64_t j = j0; j < j1; j++) {
        rows[n] = j;
        n += counts[j - j0];
    }
    for (int k = n; k < n + AT_ONCE; k++)
        rows[k] = min64(j1, s->x.shape[AXIS_C] - 1);
    return n;
}

/* Sums of one chunk of inputs. */
static void add_chunk(const scatter_job *job, int64_t i0, int64_t n, real (*sum)[CHUNK])
{
    const dtd_step *s = &job->s;
    const int64_t n_samples = job->n_samples;
    const real *x = reals(&s->x, job->bases);
    int64_t rows[ROWS + AT_ONCE];
    scatter_tile tile = {.w = vector(&s->weight, job->bases) + i0,
                         .row = job->n_in,
                         .n = n,
                         .gamma = s->gamma,
                         .rows = rows,
                         .sample = s->x.stride[AXIS_N],
                         .channel = s->x.stride[AXIS_C]};
    memset(sum, 0, (size_t)n_samples * sizeof *sum);
    for (int64_t j = 0; j < job->n_out; j += ROWS) {
        tile.n_rows = find_rows(s, x, n_samples, j, min64(j + ROWS, job->n_out), rows);
        for (int64_t m = 0; m < n_samples; m += SAMPLES) {
            tile.x = x + m * tile.sample;
            tile.sum = sum + m;
            CHUNK_FUNCTIONS[s->weight_map](&tile, (int)min64(SAMPLES, n_samples - m));
        }
    }
}

static void run_scatter(void *context, int64_t first, int64_t last)
{
    const scatter_job *job = context;
    const int64_t n_samples = job->n_samples;
    real sum[FEW_SAMPLES][CHUNK], tile[FEW_SAMPLES][DTD_BLOCK];
    for (int64_t chunk = first; chunk < last; chunk++) {
        int64_t units = ceil_div(job->n_in, DTD_BLOCK), i0 = units * chunk / job->chunks * DTD_BLOCK;
        int64_t n = min64(job->n_in, units * (chunk + 1) / job->chunks * DTD_BLOCK) - i0;
        add_chunk(job, i0, n, sum);
        for (int64_t i = 0; i < n; i += DTD_BLOCK) {
            for (int64_t m = 0; m < n_samples; m++)
                memcpy(tile[m], sum[m] + i, sizeof tile[m]);
            NAME(finish_samples)(&job->s, job->bases, 0, 0, n_samples, i0 + i, min64(DTD_BLOCK, n - i), tile[0], NULL);
        }
    }
}

const char *NAME(scatter_body)(const dtd_step *s, void *const *bases, int choice)
{
    (void)bases;
    return choice > DTD_BY_SHAPE ? NULL : s->out.shape[AXIS_N] > FEW_SAMPLES ? "scatter_batch" : "scatter";
}

void NAME(scatter_linear)(const dtd_step *s, void *const *bases, int n_threads)
{
    scatter_job job = {.s = *s,
                       .bases = bases,
                       .n_samples = s->out.shape[AXIS_N],
                       .n_in = s->out.shape[AXIS_C],
                       .n_out = s->x.shape[AXIS_C]};
    NAME(samples_as_pixels)(&job.s);
    if (job.n_samples > FEW_SAMPLES) {
        NAME(scatter_batch)(&job, n_threads);
        return;
    }
    job.chunks =
        max64(ceil_div(job.n_in, CHUNK), min64((int64_t)n_threads * CHUNKS_PER_THREAD, ceil_div(job.n_in, LEAST)));
    int64_t work = max64(1, ceil_div(job.n_in, job.chunks) * job.n_out * job.n_samples);
    dtd_parallel(n_threads, job.chunks, ceil_div(1 << 16, work), run_scatter, &job);
}
