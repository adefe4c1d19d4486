/* scatter_batch.c: the transposed product of a fully connected layer, for many samples.
 *
 *     sum[n,i] = sum_j wm(w[j,i]) x[n,j]
 *
 * A vector holds VL samples.  DEPTH rows j at a time, samples are packed as [j][sample], and mapped weights as
 * [j][input], one block of inputs after another.  A register tile holds some inputs by the samples of a panel, with one
 * broadcast weight per input.  A row whose x is 0 for every sample is skipped, as in scatter.c.
 */
#include "scatter.h"
#include "base/transpose.h"

#if defined(__aarch64__)
enum { MOST_VECTORS = 4, SUMS = 16 }; /* of samples in a panel; of sums in a register tile */
#elif defined(__AVX512F__)
enum { MOST_VECTORS = 2, SUMS = 16 };
#else
enum { MOST_VECTORS = 2, SUMS = 8 };
#endif

enum {
    PANEL = MOST_VECTORS * VL, /* samples of a panel */
    PANELS = 2,                /* that share the packed out weights */
    BLOCKS = 32,               /* of inputs that share the packed out samples */
    /* of them packed out at once, since the rows of many weights are far apart in memory; else two */
    PACKED_BLOCKS = 8,
    CACHED = (1 << 20) / sizeof(real), /* weights that stay in the second cache */
    DEPTH = 64,                        /* rows at once */
};

typedef struct {
    _Alignas(64) real x[PANELS][DEPTH * PANEL];  /* [j][sample] */
    real w[PACKED_BLOCKS][DEPTH * DTD_BLOCK];    /* [j][input] */
    real sum[BLOCKS][PANELS][DTD_BLOCK * PANEL]; /* [input][sample] */
    bits used[DEPTH + VL];                       /* j: some sample's x is not 0 */
    int rows[DEPTH], n_rows;                     /* those j, to which x and w are cut down */
} workspace;

/* ------------------------------------------------------------------------------------------------------- laying out */

/* VL numbers `stride` apart, the last of them 0 if there are but n. */
ALWAYS_INLINE vec load_most(const real *p, int64_t stride, int64_t n)
{
    vec v = {0};
    if (n >= VL)
        return stride == 1 ? load(p) : load_strided(p, stride);
    if (stride == 1 && n > 0)
        return load_some(p, n);
    for (int i = 0; i < n; i++)
        v[i] = p[i * stride];
    return v;
}

/* to[j][m] = x[m][j] of n samples, zeros up to `vectors` of them */
static void pack_samples(const dtd_step *s, const real *x, int64_t n, int64_t n_rows, int vectors, real *to, bits *used)
{
    const int64_t sample = s->x.stride[AXIS_N], channel = s->x.stride[AXIS_C], row = (int64_t)vectors * VL;
    for (int64_t m = 0; m < row; m += VL)
        for (int64_t j = 0; j < n_rows; j += VL) {
            vec v[VL];
            mask any;
            memcpy(&any, used + j, sizeof any);
#pragma GCC unroll 16
            for (int l = 0; l < VL; l++) {
                v[l] = load_most(x + (m + l) * sample + j * channel, channel, m + l < n ? n_rows - j : 0);
                any |= v[l] != 0;
            }
            memcpy(used + j, &any, sizeof any);
            transpose(v);
#pragma GCC unroll 16
            for (int l = 0; l < VL; l++)
                if (j + l < n_rows)
                    store(to + (j + l) * row + m, v[l]);
        }
}

/* Cut x down to the rows that count. */
static void drop_zero_rows(workspace *ws, int64_t n_rows, int64_t n_panels, const int *vectors)
{
    ws->n_rows = 0;
    for (int64_t j = 0; j < n_rows; j++) {
        ws->rows[ws->n_rows] = (int)j;
        ws->n_rows += ws->used[j] != 0;
    }
    for (int64_t p = 0; p < n_panels && ws->n_rows < n_rows; p++)
        for (int k = 0; k < ws->n_rows; k++)
            memmove(ws->x[p] + k * vectors[p] * VL, ws->x[p] + ws->rows[k] * vectors[p] * VL,
                    (size_t)vectors[p] * VECTOR);
}

/* wm(w) of n inputs, zeros up to whole blocks; `map` is a constant wherever this is inlined */
ALWAYS_INLINE void pack_weights(workspace *ws, const real *w, int64_t row, int64_t n, real gamma, const int map)
{
    const int64_t n_blocks = ceil_div(n, DTD_BLOCK);
    for (int k = 0; k < ws->n_rows; k++) {
        const real *from = w + ws->rows[k] * row;
        for (int64_t b = 0; b < n_blocks; b++)
            for (int64_t i = 0; i < DTD_BLOCK; i += VL)
                store(ws->w[b] + k * DTD_BLOCK + i,
                      map_weight(map, load_most(from + b * DTD_BLOCK + i, 1, n - b * DTD_BLOCK - i), gamma));
    }
}

typedef void (*pack_function)(workspace *ws, const real *w, int64_t row, int64_t n, real gamma);

#define PACK(map)                                                                                                      \
    static void pack_##map(workspace *ws, const real *w, int64_t row, int64_t n, real gamma)                           \
    {                                                                                                                  \
        pack_weights(ws, w, row, n, gamma, map);                                                                       \
    }

EACH_WEIGHT_MAP(PACK)

#define ENTRY(map) [map] = pack_##map,
static const pack_function PACK_FUNCTIONS[] = {EACH_WEIGHT_MAP(ENTRY)};

/* ------------------------------------------------------------------------------------------------------------ tiles */

/* Sums of some inputs by the samples of a panel; `vectors` is a constant wherever this is inlined. */
ALWAYS_INLINE void run_tile(const real *x, const real *w, int n_rows, int resume, real *sum, const int vectors)
{
    const int inputs = SUMS / vectors;
    vec a[SUMS];
#pragma GCC unroll 16
    for (int i = 0; i < SUMS; i++)
        a[i] = resume ? load(sum + i * VL) : (vec){0};
#pragma GCC unroll 4
    for (int k = 0; k < n_rows; k++, x += vectors * VL, w += DTD_BLOCK) {
        vec xk[MOST_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            xk[v] = load(x + v * VL);
#pragma GCC unroll 16
        for (int i = 0; i < inputs; i++) {
            const vec q = splat(w[i]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                a[i * vectors + v] += xk[v] * q;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < SUMS; i++)
        store(sum + i * VL, a[i]);
}

/* A block of inputs by a panel. */
static void run_block(const real *x, const real *w, int n_rows, int resume, real *sum, int vectors)
{
    for (int64_t i = 0; i < DTD_BLOCK; i += SUMS / vectors) {
        real *to = sum + i * vectors * VL;
        if (vectors == MOST_VECTORS)
            run_tile(x, w + i, n_rows, resume, to, MOST_VECTORS);
        else if (vectors == 2)
            run_tile(x, w + i, n_rows, resume, to, 2);
        else
            run_tile(x, w + i, n_rows, resume, to, 1);
    }
}

/* ----------------------------------------------------------------------------------------------------------- driver */

/* to[m][i] = sum[i][m] for a block of inputs and n samples, from sample m0 of a panel on */
static void transpose_sums(const real *sum, int vectors, int64_t m0, int64_t n, real *to)
{
    for (int64_t m = 0; m < n; m += VL)
        for (int64_t i = 0; i < DTD_BLOCK; i += VL) {
            vec v[VL];
#pragma GCC unroll 16
            for (int l = 0; l < VL; l++)
                v[l] = load(sum + (i + l) * vectors * VL + m0 + m);
            transpose(v);
#pragma GCC unroll 16
            for (int l = 0; l < VL; l++)
                store(to + (m + l) * DTD_BLOCK + i, v[l]);
        }
}

/* A block of inputs i.. of n samples m0.. through the epilogue. */
static void finish_block(const scatter_job *job, const real *sum, int vectors, int64_t m0, int64_t n, int64_t i)
{
    real tile[DTD_TILE_PIXELS * DTD_BLOCK];
    for (int64_t m = 0; m < n; m += DTD_TILE_PIXELS) {
        const int64_t at_once = min64(DTD_TILE_PIXELS, n - m);
        transpose_sums(sum, vectors, m, at_once, tile);
        NAME(finish_samples)(&job->s, job->bases, 0, m0 + m, at_once, i, min64(DTD_BLOCK, job->n_in - i), tile, NULL);
    }
}

/* Blocks of inputs by up to PANELS panels of samples. */
static void run_blocks(const scatter_job *job, int64_t block, int64_t n_blocks, int64_t m0, int64_t n_samples,
                       workspace *ws)
{
    const dtd_step *s = &job->s;
    const int64_t n_panels = ceil_div(n_samples, PANEL);
    const real *x = reals(&s->x, job->bases) + m0 * s->x.stride[AXIS_N], *w = vector(&s->weight, job->bases);
    const int64_t at_once = job->n_in * job->n_out <= CACHED ? 2 : PACKED_BLOCKS;
    int vectors[PANELS];
    for (int64_t p = 0; p < n_panels; p++) {
        const int least = (int)ceil_div(min64(PANEL, n_samples - p * PANEL), VL);
        vectors[p] = least > 2 ? MOST_VECTORS : least;
    }
    for (int64_t j = 0; j < job->n_out; j += DEPTH) {
        const int64_t n_rows = min64(DEPTH, job->n_out - j);
        memset(ws->used, 0, sizeof ws->used);
        for (int64_t p = 0; p < n_panels; p++)
            pack_samples(s, x + p * PANEL * s->x.stride[AXIS_N] + j * s->x.stride[AXIS_C], n_samples - p * PANEL,
                         n_rows, vectors[p], ws->x[p], ws->used);
        drop_zero_rows(ws, n_rows, n_panels, vectors);
        for (int64_t b = 0; b < n_blocks; b += at_once) {
            const int64_t i = (block + b) * DTD_BLOCK, packed = min64(at_once, n_blocks - b);
            PACK_FUNCTIONS[s->weight_map](ws, w + j * job->n_in + i, job->n_in,
                                          min64(packed * DTD_BLOCK, job->n_in - i), s->gamma);
            for (int64_t l = 0; l < packed; l++)
                for (int64_t p = 0; p < n_panels; p++)
                    run_block(ws->x[p], ws->w[l], ws->n_rows, j > 0, ws->sum[b + l][p], vectors[p]);
        }
    }
    for (int64_t b = 0; b < n_blocks; b++)
        for (int64_t p = 0; p < n_panels; p++)
            finish_block(job, ws->sum[b][p], vectors[p], m0 + p * PANEL, min64(PANEL, n_samples - p * PANEL),
                         (block + b) * DTD_BLOCK);
}

static void run_scatter_batch(void *context, int64_t first, int64_t last)
{
    const scatter_job *job = context;
    workspace ws;
    for (int64_t block = first; block < last; block += BLOCKS)
        for (int64_t m = 0; m < job->n_samples; m += PANELS * PANEL)
            run_blocks(job, block, min64(BLOCKS, last - block), m, min64(PANELS * PANEL, job->n_samples - m), &ws);
}

void NAME(scatter_batch)(scatter_job *job, int n_threads)
{
    const int64_t blocks = ceil_div(job->n_in, DTD_BLOCK), work = max64(1, job->n_out * DTD_BLOCK * job->n_samples);
    /* few ranges: each lays out the samples anew */
    dtd_parallel(n_threads, blocks, max64(ceil_div(1 << 17, work), blocks / (2 * max64(1, n_threads))),
                 run_scatter_batch, job);
}
