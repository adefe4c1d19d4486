/* weight_gradient.c: the product behind the relevance of weights, and behind a weight's gradient.
 *
 *     out[row,j] += sum_n sum_p x[n, p + tap_k, i] m[n, p, j],     row = (k, i)
 *
 * Positions p of a sample come in blocks of POSITIONS.  A block is summed in the run's type, each sum one chain over p;
 * blocks are added in double, sample by sample, to what out holds.  So a result's bits depend on the samples and their
 * order alone: on no thread, no tile, and not on how a data set is divided into batches.
 *
 * Where samples have one position, as in a fully connected layer, products are made and added in double.
 *
 * A register tile holds ROWS rows by COLUMNS channels of m.  A block of m is packed for all rows of an item; x is read
 * in place.  The rows of an item are as many as leave its results in the second cache.
 */
#include "base/kernel.h"
#include "base/simd.h"

enum {
    ROWS = PIXELS,
    COLUMNS = 2 * VL,
    POSITIONS = 128,
    TAPS = 3, /* of a tile that has its own channel of x for each channel of m */
    ITEM_BYTES = 1 << 17,
    CHUNK_BYTES = 1 << 21, /* of x and m that all items of a thread read in turn */
};

typedef struct {
    const dtd_step *s;
    double *out;
    const real *x, *m;
    const int64_t *taps;
    int64_t inputs, outputs, rows;           /* of a group */
    int64_t strips, tiles, span;             /* COLUMNS of its outputs, ROWS of its rows, tiles of an item */
    int64_t spans, positions, blocks, chunk; /* items of a strip; blocks of a sample, and of a chunk */
    int channels;                            /* one group for each channel */
} gradient_job;

/* The positions of a block: where they are in x and in m. */
typedef struct {
    int64_t n, x[POSITIONS], m[POSITIONS];
} block;

static void find_block(const gradient_job *job, int64_t number, block *b)
{
    const dtd_view *x = &job->s->x, *m = &job->s->m;
    const int64_t sample = number / job->blocks, first = number % job->blocks * POSITIONS;
    b->n = min64(POSITIONS, job->positions - first);
    int64_t w = first % m->shape[AXIS_W], h = first / m->shape[AXIS_W], d = h / m->shape[AXIS_H];
    h %= m->shape[AXIS_H];
    for (int64_t p = 0; p < b->n; p++) {
        b->x[p] = sample * x->stride[AXIS_N] + d * x->stride[AXIS_D] + h * x->stride[AXIS_H] + w * x->stride[AXIS_W];
        b->m[p] = sample * m->stride[AXIS_N] + d * m->stride[AXIS_D] + h * m->stride[AXIS_H] + w * m->stride[AXIS_W];
        if (++w < m->shape[AXIS_W])
            continue;
        w = 0;
        if (++h == m->shape[AXIS_H])
            h = 0, d++;
    }
}

/* out += sums, `n` of them */
ALWAYS_INLINE void add(double *out, const real *sums, int64_t n)
{
    for (int64_t j = 0; j < n; j++)
        out[j] += (double)sums[j];
}

/* -------------------------------------------------------------------------------------------------- rows by columns */

/* row[r]: where the input of a row is, behind the position; `together`: side by side. */
ALWAYS_INLINE void run_tile(const real *x, const int64_t *row, const block *b, const real *packed, real *sums,
                            const int together)
{
    vec a[ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++)
        a[r][0] = a[r][1] = (vec){0};
    x += together ? row[0] : 0;
    for (int64_t p = 0; p < b->n; p++, packed += COLUMNS) {
        const real *at = x + b->x[p];
        const vec m0 = load(packed), m1 = load(packed + VL);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            const vec v = splat(together ? at[r] : at[row[r]]);
            a[r][0] += v * m0;
            a[r][1] += v * m1;
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
        store(sums + r * COLUMNS, a[r][0]);
        store(sums + r * COLUMNS + VL, a[r][1]);
    }
}

/* The channels of m of a strip at a block's positions, zeros beyond the last. */
static void pack(const gradient_job *job, const block *b, int64_t channel, int64_t n, real *packed)
{
    const int64_t stride = job->s->m.stride[AXIS_C];
    for (int64_t p = 0; p < b->n; p++, packed += COLUMNS) {
        const real *m = job->m + b->m[p] + channel * stride;
        for (int64_t j = 0; j < n; j++)
            packed[j] = m[j * stride];
        for (int64_t j = n; j < COLUMNS; j++)
            packed[j] = 0;
    }
}

/* One item, block by block: some tiles of rows by a strip of a group's outputs. */
static void run_item(const gradient_job *job, int64_t item, int64_t first, int64_t last)
{
    const int64_t span = item % job->spans, strip = item / job->spans % job->strips,
                  group = item / job->spans / job->strips, stride = job->s->x.stride[AXIS_C];
    const int64_t j = strip * COLUMNS, n = min64(COLUMNS, job->outputs - j), channel = group * job->outputs + j,
                  width = job->outputs * job->s->groups;
    block b;
    real packed[POSITIONS * COLUMNS], sums[ROWS * COLUMNS];
    for (int64_t number = first; number < last; number++) {
        find_block(job, number, &b);
        pack(job, &b, channel, n, packed);
        for (int64_t t = span * job->span; t < min64(job->tiles, (span + 1) * job->span); t++) {
            int64_t row[ROWS], count = min64(ROWS, job->rows - t * ROWS);
            int together = 1;
            for (int64_t r = 0; r < ROWS; r++) { /* a row beyond the last is that once more */
                const int64_t of = t * ROWS + min64(r, count - 1);
                row[r] = job->taps[of / job->inputs] + (group * job->inputs + of % job->inputs) * stride;
                together &= row[r] == row[0] + r;
            }
            if (together)
                run_tile(job->x, row, &b, packed, sums, 1);
            else
                run_tile(job->x, row, &b, packed, sums, 0);
            for (int64_t r = 0; r < count; r++)
                add(job->out + (t * ROWS + r) * width + channel, sums + r * COLUMNS, n);
        }
    }
}

/* ----------------------------------------------------------------------------------------------- channel by channel */

/* One item: some taps of VL channels. */
static void run_channels(const gradient_job *job, int64_t item, int64_t first, int64_t last)
{
    const int64_t channel = item / job->tiles * VL, n = min64(VL, job->s->groups - channel),
                  k = item % job->tiles * TAPS, count = min64(TAPS, job->rows - k);
    block b;
    real sums[VL];
    for (int64_t number = first; number < last; number++) {
        find_block(job, number, &b);
        vec a[TAPS] = {{0}};
        for (int64_t p = 0; p < b.n; p++) {
            const real *x = job->x + b.x[p] + channel, *m = job->m + b.m[p] + channel;
            const vec v = n == VL ? load(m) : load_some(m, n);
#pragma GCC unroll 4
            for (int t = 0; t < TAPS; t++) {
                const real *at = x + job->taps[min64(k + t, job->rows - 1)];
                a[t] += v * (n == VL ? load(at) : load_some(at, n));
            }
        }
        for (int64_t t = 0; t < count; t++) {
            store(sums, a[t]);
            add(job->out + (k + t) * job->s->groups + channel, sums, n);
        }
    }
}

/* ----------------------------------------------------------------------------------------------------- one position */

/* As many doubles as fill a vector. */
typedef double wide __attribute__((vector_size(VECTOR), aligned(sizeof(double)), may_alias));
typedef real narrow
    __attribute__((vector_size(VECTOR / sizeof(double) * sizeof(real)), aligned(sizeof(real)), may_alias));

enum { LANES = VECTOR / sizeof(double), WIDES = WIDE ? 8 : 4, SPAN = WIDES * LANES, PAIR = 2 };

/* A fully connected layer: out comes from memory, so a pair of its rows is walked from end to end, and all samples are
 * added to what is in registers.  A product of two floats is exact in double. */
static void run_pair(const gradient_job *job, int64_t pair)
{
    const dtd_view *x = &job->s->x, *m = &job->s->m;
    const int64_t samples = m->shape[AXIS_N], n_rows = min64(PAIR, job->rows - pair * PAIR);
    const real *at[PAIR]; /* a row beyond the last is that once more */
    double *out[PAIR];
    int empty = 1;
    for (int r = 0; r < PAIR; r++) {
        const int64_t row = pair * PAIR + min64(r, n_rows - 1);
        at[r] = job->x + job->taps[0] + row * x->stride[AXIS_C], out[r] = job->out + row * job->outputs;
        for (int64_t n = 0; n < samples && empty; n++)
            empty = at[r][n * x->stride[AXIS_N]] == 0;
    }
    if (empty)
        return;
    int64_t j = 0;
    for (; j + SPAN <= job->outputs; j += SPAN) {
        wide a[PAIR][WIDES];
#pragma GCC unroll 2
        for (int r = 0; r < PAIR; r++)
#pragma GCC unroll 8
            for (int v = 0; v < WIDES; v++)
                a[r][v] = *(const wide *)(out[r] + j + v * LANES);
        for (int64_t n = 0; n < samples; n++) {
            const real *row = job->m + n * m->stride[AXIS_N] + j;
            const double x0 = at[0][n * x->stride[AXIS_N]], x1 = at[1][n * x->stride[AXIS_N]];
#pragma GCC unroll 8
            for (int v = 0; v < WIDES; v++) {
                const wide t = __builtin_convertvector(*(const narrow *)(row + v * LANES), wide);
                a[0][v] += x0 * t;
                a[1][v] += x1 * t;
            }
        }
        for (int r = 0; r < n_rows; r++)
            for (int v = 0; v < WIDES; v++)
                *(wide *)(out[r] + j + v * LANES) = a[r][v];
    }
    /* Sample by sample too: a compiler that makes several products of one sum at a time rounds them apart from it. */
    const int64_t rest = job->outputs - j;
    for (int r = 0; rest && r < n_rows; r++) {
        double a[SPAN];
        memcpy(a, out[r] + j, (size_t)rest * sizeof *a);
        for (int64_t n = 0; n < samples; n++) {
            const real *row = job->m + n * m->stride[AXIS_N] + j;
            const double x0 = at[r][n * x->stride[AXIS_N]];
            for (int64_t k = 0; k < rest; k++)
                a[k] += x0 * (double)row[k];
        }
        memcpy(out[r] + j, a, (size_t)rest * sizeof *a);
    }
}

static void run_pairs(void *context, int64_t first, int64_t last)
{
    for (int64_t pair = first; pair < last; pair++)
        run_pair(context, pair);
}

/* ------------------------------------------------------------------------------------------------------------- step */

/* A chunk of blocks after the other, so that x and m come from memory once for all items. */
static void run_items(void *context, int64_t first, int64_t last)
{
    const gradient_job *job = context;
    const int64_t blocks = job->s->m.shape[AXIS_N] * job->blocks;
    for (int64_t begin = 0; begin < blocks; begin += job->chunk)
        for (int64_t item = first; item < last; item++)
            (job->channels ? run_channels : run_item)(job, item, begin, min64(blocks, begin + job->chunk));
}

void NAME(weight_gradient)(const dtd_step *s, void *const *bases, int n_threads)
{
    const dtd_view *x = &s->x, *m = &s->m;
    gradient_job job = {.s = s, .out = (double *)bases[s->out.base] + s->out.offset, .x = reals(x, bases)};
    job.m = reals(m, bases), job.taps = table(&s->taps, bases);
    job.inputs = x->shape[AXIS_C] / s->groups, job.outputs = m->shape[AXIS_C] / s->groups;
    job.rows = s->n_taps * job.inputs;
    job.positions = m->shape[AXIS_D] * m->shape[AXIS_H] * m->shape[AXIS_W];
    job.blocks = ceil_div(job.positions, POSITIONS);
    const int64_t position = (x->shape[AXIS_C] + m->shape[AXIS_C]) * (int64_t)sizeof(real);
    job.chunk = max64(1, CHUNK_BYTES / (position * min64(job.positions, POSITIONS)));
    job.channels =
        job.inputs == 1 && job.outputs == 1 && s->groups > 1 && x->stride[AXIS_C] == 1 && m->stride[AXIS_C] == 1;
    if (!job.rows || !job.positions)
        return;
    if (job.positions == 1 && s->n_taps == 1 && s->groups == 1 && m->stride[AXIS_C] == 1) {
        const int64_t pairs = ceil_div(job.rows, PAIR);
        dtd_parallel(n_threads, pairs, ceil_div(pairs, n_threads), run_pairs, &job);
        return;
    }
    int64_t n_items;
    if (job.channels) {
        job.tiles = ceil_div(job.rows, TAPS);
        n_items = ceil_div(s->groups, VL) * job.tiles;
    } else {
        const int64_t strips = job.strips = ceil_div(job.outputs, COLUMNS);
        job.tiles = ceil_div(job.rows, ROWS);
        job.span = min64(ITEM_BYTES / (ROWS * COLUMNS * (int64_t)sizeof(double)),
                         ceil_div(job.tiles * strips * s->groups, 4 * (int64_t)n_threads));
        job.spans = ceil_div(job.tiles, job.span);
        n_items = s->groups * strips * job.spans;
    }
    dtd_parallel(n_threads, n_items, ceil_div(n_items, n_threads), run_items, &job);
}
