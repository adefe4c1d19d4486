/* linear.c: fully connected layers on the record's own weight rows, in place.
 *
 *     sum[n,j] = sum_i x[n,i] wm(w[j,i])
 *
 * A register tile holds some rows j by some samples n, one vector of partial sums each: lane l adds the inputs i = l mod VL in order,
 * and the lanes are added last, always as the same tree.  Every weight row is read once per DTD_TILE_PIXELS samples.
 */
#include "epilogue.h"
#include "simd.h"

#if defined(__AVX512F__)
enum { SINGLE_ROWS = 4, DUAL_ROWS = 2, SAMPLES = 6 };
#elif defined(__aarch64__)
enum { SINGLE_ROWS = 4, DUAL_ROWS = 2, SAMPLES = 6 };
#else
enum { SINGLE_ROWS = 2, DUAL_ROWS = 1, SAMPLES = 6 };
#endif

enum {
    CHUNK = 1024,       /* inputs between loads and stores of the partial sums: a chunk of rows and samples stays in the cache */
    PITCH = CHUNK + 16, /* of packed samples, which would else fall into the same sets of the first cache */
};

typedef vec partial_sums[DTD_BLOCK][DTD_TILE_PIXELS];

typedef struct {
    const real *x, *w;
    int64_t sample, row, n; /* strides of x and w, inputs in this chunk */
    real gamma;
    int begin;                                                     /* these are the first inputs */
    vec (*sum)[DTD_TILE_PIXELS], (*sum_positive)[DTD_TILE_PIXELS]; /* [row][sample] */
} linear_tile;

/* Multiply-adds of one vector of inputs; `rows`, `samples`, `map` and `full` are constants wherever this is inlined. */
ALWAYS_INLINE void add_inputs(const linear_tile *t, int64_t i, vec a[][SAMPLES], vec b[][SAMPLES], const int rows, const int samples,
                              const int map, const int full)
{
    const int dual = map == DUAL_MAP;
#pragma GCC unroll 4
    for (int j = 0; j < rows; j++) {
        const real *wj = t->w + j * t->row + i;
        __builtin_prefetch(wj + CHUNK);
        vec w = full ? load(wj) : load_some(wj, t->n - i);
        vec q = map_weight(dual ? DTD_W : map, w, t->gamma), r = vec_positive(w);
#pragma GCC unroll 6
        for (int m = 0; m < samples; m++) {
            const real *xm = t->x + m * t->sample + i;
            vec x = full ? load(xm) : load_some(xm, t->n - i);
            a[j][m] += x * q;
            if (dual)
                b[j][m] += x * r;
        }
    }
}

ALWAYS_INLINE void run_tile(const linear_tile *t, const int rows, const int samples, const int map)
{
    const int dual = map == DUAL_MAP;
    vec a[SINGLE_ROWS][SAMPLES], b[DUAL_ROWS][SAMPLES];
#pragma GCC unroll 4
    for (int j = 0; j < rows; j++)
#pragma GCC unroll 6
        for (int m = 0; m < samples; m++) {
            a[j][m] = t->begin ? (vec){0} : t->sum[j][m];
            if (dual)
                b[j][m] = t->begin ? (vec){0} : t->sum_positive[j][m];
        }
    int64_t i = 0;
    for (; i + VL <= t->n; i += VL)
        add_inputs(t, i, a, b, rows, samples, map, 1);
    if (i < t->n)
        add_inputs(t, i, a, b, rows, samples, map, 0);
#pragma GCC unroll 4
    for (int j = 0; j < rows; j++)
#pragma GCC unroll 6
        for (int m = 0; m < samples; m++) {
            t->sum[j][m] = a[j][m];
            if (dual)
                t->sum_positive[j][m] = b[j][m];
        }
}

ALWAYS_INLINE void run_samples(const linear_tile *t, const int rows, int samples, const int map)
{
    switch (samples) {
    case 1: run_tile(t, rows, 1, map); break;
    case 2: run_tile(t, rows, 2, map); break;
    case 3: run_tile(t, rows, 3, map); break;
    case 4: run_tile(t, rows, 4, map); break;
    case 5: run_tile(t, rows, 5, map); break;
    case 6: run_tile(t, rows, 6, map); break;
    }
}

typedef void (*tile_function)(const linear_tile *t, int samples);

#define TILES(map)                                                                                                                         \
    static void rows_##map(const linear_tile *t, int samples) { run_samples(t, map == DUAL_MAP ? DUAL_ROWS : SINGLE_ROWS, samples, map); } \
    static void row_##map(const linear_tile *t, int samples) { run_samples(t, 1, samples, map); }

EACH_MAP(TILES)

#define ENTRY(map) [map] = {row_##map, rows_##map},
static const tile_function TILE_FUNCTIONS[][2] = {EACH_MAP(ENTRY)};

/* ------------------------------------------------------------------------------------------------------------------ driver */

typedef struct {
    dtd_step s; /* with the samples as pixels of one row */
    void *const *bases;
    int neuron, map;
    int64_t n_samples, n_in, n_out;
} linear_job;

/* A chunk of x as rows of samples from a cache line on. */
typedef struct {
    _Alignas(64) real x[DTD_TILE_PIXELS * PITCH];
    int64_t sample, input; /* its first ones; sample -1: none yet */
} packed_chunk;

static int packed_pays(const dtd_step *s, const real *x, int64_t n_samples)
{
    const int strided = s->x.stride[AXIS_C] != 1, aligned = (uintptr_t)x % VECTOR == 0 && s->x.stride[AXIS_N] % VL == 0;
    return strided || (!aligned && n_samples > SAMPLES); /* a load that straddles two lines costs two */
}

static void pack_chunk(const dtd_step *s, const real *x, int64_t m0, int64_t n_samples, int64_t i0, int64_t n, packed_chunk *to)
{
    const int64_t channel = s->x.stride[AXIS_C], sample = s->x.stride[AXIS_N];
    if (to->sample == m0 && to->input == i0)
        return;
    for (int64_t m = 0; m < n_samples; m++)
        if (channel == 1)
            memcpy(to->x + m * PITCH, x + m * sample, (size_t)n * sizeof *x);
        else
            for (int64_t i = 0; i < n; i++)
                to->x[m * PITCH + i] = x[m * sample + i * channel];
    to->sample = m0;
    to->input = i0;
}

/* Sums of one block of outputs for up to DTD_TILE_PIXELS samples. */
static void add_block(const linear_job *job, int64_t j0, int64_t n_rows, int64_t m0, int64_t n_samples, partial_sums *sums,
                      packed_chunk *packed)
{
    const dtd_step *s = &job->s;
    const int rows_at_once = job->map == DUAL_MAP ? DUAL_ROWS : SINGLE_ROWS;
    const int64_t chunk = CHUNK;
    for (int64_t j = n_rows; j < DTD_BLOCK; j++)
        for (int b = 0; b < 2; b++)
            memset(sums[b][j], 0, sizeof sums[b][j]);
    for (int64_t i = 0; i < job->n_in; i += chunk) {
        int64_t n = min64(chunk, job->n_in - i);
        const real *x = reals(&s->x, job->bases) + m0 * s->x.stride[AXIS_N] + i * s->x.stride[AXIS_C];
        const real *w = vector(&s->weight, job->bases) + j0 * job->n_in + i;
        linear_tile tile = {.sample = s->x.stride[AXIS_N], .row = job->n_in, .n = n, .gamma = s->gamma, .begin = !i};
        if (packed_pays(s, x, n_samples)) {
            pack_chunk(s, x, m0, n_samples, i, n, packed);
            x = packed->x;
            tile.sample = PITCH;
        }
        for (int64_t m = 0; m < n_samples; m += SAMPLES) /* the samples' x stays in the first cache, the rows in the second */
            for (int64_t j = 0; j < n_rows;) {
                int many = j + rows_at_once <= n_rows;
                tile.w = w + j * job->n_in;
                tile.x = x + m * tile.sample;
                tile.sum = (vec(*)[DTD_TILE_PIXELS])(&sums[0][j][m]);
                tile.sum_positive = (vec(*)[DTD_TILE_PIXELS])(&sums[1][j][m]);
                TILE_FUNCTIONS[job->map][many](&tile, (int)min64(SAMPLES, n_samples - m));
                j += many ? rows_at_once : 1;
            }
    }
}

static void run_linear(void *context, int64_t first, int64_t last)
{
    const linear_job *job = context;
    const dtd_step *s = &job->s;
    partial_sums sums[2];
    packed_chunk packed;
    packed.sample = -1;
    real y[DTD_TILE_PIXELS][DTD_BLOCK], terms[DTD_TILE_PIXELS][DTD_BLOCK];
    const int dual = job->map == DUAL_MAP;
    for (int64_t block = first; block < last; block++) {
        int64_t j0 = block * DTD_BLOCK, n_rows = min64(DTD_BLOCK, job->n_out - j0);
        for (int64_t m0 = 0; m0 < job->n_samples; m0 += DTD_TILE_PIXELS) {
            int64_t n_samples = min64(DTD_TILE_PIXELS, job->n_samples - m0);
            add_block(job, j0, n_rows, m0, n_samples, sums, &packed);
            for (int64_t m = 0; m < n_samples; m++) {
                add_lanes_of(&sums[0][0][m], DTD_TILE_PIXELS, y[m]);
                if (dual)
                    add_lanes_of(&sums[1][0][m], DTD_TILE_PIXELS, terms[m]);
            }
            NAME(finish_samples)(s, job->bases, job->neuron, m0, n_samples, j0, n_rows, y[0], s->dual ? terms[0] : NULL);
        }
    }
}

static void linear(const dtd_step *s, void *const *bases, int n_threads, int neuron)
{
    linear_job job = {.s = *s,
                      .bases = bases,
                      .neuron = neuron,
                      .map = neuron ? (s->dual ? DUAL_MAP : DTD_W) : s->weight_map,
                      .n_samples = s->out.shape[AXIS_N],
                      .n_in = s->x.shape[AXIS_C],
                      .n_out = s->out.shape[AXIS_C]};
    NAME(samples_as_pixels)(&job.s);
    int64_t work = max64(1, job.n_in * DTD_BLOCK * job.n_samples);
    dtd_parallel(n_threads, ceil_div(job.n_out, DTD_BLOCK), ceil_div(1 << 17, work), run_linear, &job);
}

void NAME(neuron_linear)(const dtd_step *s, void *const *bases, int n_threads) { linear(s, bases, n_threads, 1); }
void NAME(taps_linear)(const dtd_step *s, void *const *bases, int n_threads) { linear(s, bases, n_threads, 0); }
