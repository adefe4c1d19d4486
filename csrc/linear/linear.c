/* linear.c: fully connected layers, on the record's own weight rows.
 *
 *     sum[n,j] = sum_i x[n,i] wm(w[j,i])
 *
 * A register tile holds some rows j by some samples n, with one vector of partial sums each.  Lane l adds the inputs
 * i = l mod VL in order; the lanes are added last, always as the same tree.  Every weight row is read once per
 * DTD_TILE_PIXELS samples.
 */
#include "base/epilogue.h"
#include "base/simd.h"

#if defined(__AVX512F__)
enum { SINGLE_ROWS = 4, DUAL_ROWS = 2, SAMPLES = 6 };
#elif defined(__aarch64__)
enum { SINGLE_ROWS = 4, DUAL_ROWS = 2, SAMPLES = 6 };
#else
enum { SINGLE_ROWS = 2, DUAL_ROWS = 1, SAMPLES = 6 };
#endif

enum {
    /* inputs between loads and stores of the partial sums: a chunk of rows and samples stays in the cache */
    CHUNK = 1024,
    FEW = 12,  /* samples, for which weights that come from memory take longer than products do */
    GROUP = 4, /* blocks of outputs that share packed samples */
    CACHED_WEIGHTS = (3 << 19) / sizeof(real), /* of a thread */
    /* of packed samples, which would else fall into the same sets of the first cache */
    PITCH = CHUNK + 16,
};

typedef vec partial_sums[DTD_BLOCK][DTD_TILE_PIXELS];

typedef struct {
    const real *x, *w;
    int64_t sample, row, n; /* strides of x and w, inputs in this chunk */
    real gamma;
    int begin;                                              /* these are the first inputs */
    vec (*sum)[DTD_TILE_PIXELS], (*terms)[DTD_TILE_PIXELS]; /* [row][sample] */
} linear_tile;

/* Multiply-adds of one vector of inputs; all from `rows` on are constants wherever this is inlined. */
ALWAYS_INLINE void add_inputs(const linear_tile *t, int64_t i, vec a[][SAMPLES], vec b[][SAMPLES], const int rows,
                              const int samples, const int map, const int packed, const int full)
{
    const int dual = map == DUAL_MAP;
#pragma GCC unroll 4
    for (int j = 0; j < rows; j++) {
        const real *wj = t->w + j * t->row + i;
        if (!packed) /* few samples: weights come from memory */
            __builtin_prefetch(wj + CHUNK);
        vec w = full ? load(wj) : load_some(wj, t->n - i);
        vec q = map_weight(dual ? DTD_W : map, w, t->gamma), r = vec_positive(w);
#pragma GCC unroll 6
        for (int m = 0; m < samples; m++) {
            const real *xm = t->x + m * (packed ? PITCH : t->sample) + i;
            vec x = full ? load(xm) : load_some(xm, t->n - i);
            a[j][m] += x * q;
            if (dual)
                b[j][m] += x * r;
        }
    }
}

ALWAYS_INLINE void run_tile(const linear_tile *t, const int rows, const int samples, const int map, const int packed)
{
    const int dual = map == DUAL_MAP;
    vec a[SINGLE_ROWS][SAMPLES], b[DUAL_ROWS][SAMPLES];
#pragma GCC unroll 4
    for (int j = 0; j < rows; j++)
#pragma GCC unroll 6
        for (int m = 0; m < samples; m++) {
            a[j][m] = t->begin ? (vec){0} : t->sum[j][m];
            if (dual)
                b[j][m] = t->begin ? (vec){0} : t->terms[j][m];
        }
    int64_t i = 0;
#pragma GCC unroll 4
    for (; i + VL <= t->n; i += VL)
        add_inputs(t, i, a, b, rows, samples, map, packed, 1);
    if (i < t->n)
        add_inputs(t, i, a, b, rows, samples, map, packed, 0);
#pragma GCC unroll 4
    for (int j = 0; j < rows; j++)
#pragma GCC unroll 6
        for (int m = 0; m < samples; m++) {
            t->sum[j][m] = a[j][m];
            if (dual)
                t->terms[j][m] = b[j][m];
        }
}

ALWAYS_INLINE void run_samples(const linear_tile *t, const int rows, int samples, const int map, const int packed)
{
    switch (samples) {
    case 1: run_tile(t, rows, 1, map, packed); break;
    case 2: run_tile(t, rows, 2, map, packed); break;
    case 3: run_tile(t, rows, 3, map, packed); break;
    case 4: run_tile(t, rows, 4, map, packed); break;
    case 5: run_tile(t, rows, 5, map, packed); break;
    case 6: run_tile(t, rows, 6, map, packed); break;
    }
}

typedef void (*tile_function)(const linear_tile *t, int samples);

/* The tiles of one weight map: one row or several, on samples where they lie or packed. */
#define TILE(name, map, rows, packed)                                                                                  \
    static void name(const linear_tile *t, int samples) { run_samples(t, rows, samples, map, packed); }
#define TILES(map)                                                                                                     \
    TILE(row_##map, map, 1, 0)                                                                                         \
    TILE(rows_##map, map, map == DUAL_MAP ? DUAL_ROWS : SINGLE_ROWS, 0)                                                \
    TILE(packed_row_##map, map, 1, 1)                                                                                  \
    TILE(packed_rows_##map, map, map == DUAL_MAP ? DUAL_ROWS : SINGLE_ROWS, 1)

EACH_MAP(TILES)

#define ENTRY(map) [map] = {{row_##map, rows_##map}, {packed_row_##map, packed_rows_##map}},
static const tile_function TILE_FUNCTIONS[][2][2] = {EACH_MAP(ENTRY)};

/* ----------------------------------------------------------------------------------------------------------- driver */

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

static void pack_chunk(const dtd_step *s, const real *x, int64_t m0, int64_t n_samples, int64_t i0, int64_t n,
                       packed_chunk *to)
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

/* What a thread sums up: blocks j0.. of outputs for samples m0.. */
typedef struct {
    int64_t j0, m0, n_blocks, n_samples;
    int pack;
    partial_sums sums[GROUP][2]; /* of w, and of w+ beside it */
    packed_chunk packed;
} linear_work;

/* A block of n_rows outputs: what one chunk of inputs adds to it. */
static void add_block(const linear_job *job, linear_tile tile, int packed, int64_t n_rows, int64_t n_samples,
                      partial_sums *sums)
{
    const int rows_at_once = job->map == DUAL_MAP ? DUAL_ROWS : SINGLE_ROWS;
    const int64_t groups = ceil_div(n_samples, SAMPLES);
    const real *x = tile.x, *w = tile.w;
    for (int64_t j = n_rows; j < DTD_BLOCK; j++)
        for (int b = 0; b < 2; b++)
            memset(sums[b][j], 0, sizeof sums[b][j]);
    for (int64_t g = 0; g < groups; g++) { /* the samples' x stays in the first cache, the rows in the second */
        const int64_t m = n_samples * g / groups, at_once = n_samples * (g + 1) / groups - m;
        for (int64_t j = 0; j < n_rows;) {
            int many = j + rows_at_once <= n_rows;
            tile.w = w + j * job->n_in;
            tile.x = x + m * tile.sample;
            tile.sum = (vec(*)[DTD_TILE_PIXELS])(&sums[0][j][m]);
            tile.terms = (vec(*)[DTD_TILE_PIXELS])(&sums[1][j][m]);
            TILE_FUNCTIONS[job->map][packed][many](&tile, (int)at_once);
            j += many ? rows_at_once : 1;
        }
    }
}

/* A block's sums through the epilogue. */
static void finish_block(const linear_job *job, const linear_work *work, int64_t j0, int64_t n_rows, partial_sums *sums)
{
    const dtd_step *s = &job->s;
    const int dual = job->map == DUAL_MAP;
    real y[DTD_TILE_PIXELS][DTD_BLOCK], terms[DTD_TILE_PIXELS][DTD_BLOCK];
    for (int64_t m = 0; m < work->n_samples; m++) {
        add_lanes_of(&sums[0][0][m], DTD_TILE_PIXELS, y[m]);
        if (dual)
            add_lanes_of(&sums[1][0][m], DTD_TILE_PIXELS, terms[m]);
    }
    real *second = dual ? terms[0] : NULL;
    NAME(finish_samples)(s, job->bases, job->neuron, work->m0, work->n_samples, j0, n_rows, y[0], second);
}

static void run_blocks(const linear_job *job, linear_work *work)
{
    const dtd_step *s = &job->s;
    const int64_t sample = s->x.stride[AXIS_N], channel = s->x.stride[AXIS_C];
    const int pack = work->pack;
    for (int64_t i = 0; i < job->n_in; i += CHUNK) {
        const int64_t n = min64(CHUNK, job->n_in - i);
        const int first = i == 0, last = i + n == job->n_in;
        linear_tile tile = {.x = reals(&s->x, job->bases) + work->m0 * sample + i * channel,
                            .sample = sample,
                            .row = job->n_in,
                            .n = n,
                            .gamma = s->gamma,
                            .begin = first};
        if (pack) {
            pack_chunk(s, tile.x, work->m0, work->n_samples, i, n, &work->packed);
            tile.x = work->packed.x;
            tile.sample = PITCH;
        }
        for (int64_t b = 0; b < work->n_blocks; b++) {
            const int64_t j0 = work->j0 + b * DTD_BLOCK, n_rows = min64(DTD_BLOCK, job->n_out - j0);
            partial_sums *sums = work->sums[first && last ? 0 : b];
            tile.w = vector(&s->weight, job->bases) + j0 * job->n_in + i;
            add_block(job, tile, pack, n_rows, work->n_samples, sums);
            if (last)
                finish_block(job, work, j0, n_rows, sums);
        }
    }
}

static void run_linear(void *context, int64_t first, int64_t last)
{
    const linear_job *job = context;
    /* then samples pass once, else the weights do */
    const int cached = (last - first) * DTD_BLOCK * job->n_in <= CACHED_WEIGHTS;
    const int many = job->n_samples > (cached ? SAMPLES : FEW);
    const int64_t group = many ? GROUP : 1, groups = ceil_div(last - first, group),
                  panels = ceil_div(job->n_samples, DTD_TILE_PIXELS);
    linear_work work;
    work.pack = many || job->s.x.stride[AXIS_C] != 1;
    work.packed.sample = -1;
    for (int64_t item = 0; item < groups * panels; item++) {
        const int64_t block = first + (cached ? item % groups : item / panels) * group;
        work.j0 = block * DTD_BLOCK;
        work.n_blocks = min64(group, last - block);
        work.m0 = (cached ? item / groups : item % panels) * DTD_TILE_PIXELS;
        work.n_samples = min64(DTD_TILE_PIXELS, job->n_samples - work.m0);
        run_blocks(job, &work);
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
