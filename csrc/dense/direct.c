/* direct.c: direct convolution, and every other dense tap layer, on channels-last views.
 *
 *     sum[p,j] = sum_k sum_i x[p + tap_k, i] wm(w[k,i,j])
 *
 * A register tile holds some pixels of one row by one or two blocks of output channels.  x is read in place, with one
 * broadcast per pixel; weights are read in their packed order.  Each sum is one chain over (k, i), in every tile.
 */
#include "dense.h"
#include "base/simd.h"

typedef struct {
    const real *x, *w;
    const int64_t *taps;
    int64_t n_taps, c_in, pixel, block; /* block: elements of one packed block of weights */
    real gamma;
    int64_t row;       /* sums of a pixel that are there at a time */
    real *sum, *terms; /* [pixel][row] */
    const char *ahead; /* NULL, or what the second cache fetches meanwhile, `ahead_step` bytes per input */
    int64_t ahead_step;
} direct_tile;

/* One register tile; `pixels`, `vectors`, `map` and `fetch` are constants wherever this is inlined. */
ALWAYS_INLINE void run_tile(const direct_tile *t, const int pixels, const int vectors, const int map, int lane,
                            const int fetch)
{
    const int dual = map == DUAL_MAP;
    const int64_t c_in = t->c_in, pixel = t->pixel, block = t->block;
    const real *w = t->w + lane;
    const char *ahead = t->ahead;
    /* registers: every index below is a constant once the loops are unrolled */
    vec a[PIXELS][VECTORS], b[PIXELS][VECTORS];
#pragma GCC unroll 16
    for (int p = 0; p < pixels; p++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            a[p][v] = b[p][v] = (vec){0};
    for (int64_t k = 0; k < t->n_taps; k++) {
        const real *x = t->x + t->taps[k];
        for (int64_t c = 0; c < c_in; c++, w += DTD_BLOCK) {
            vec q[VECTORS], r[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) {
                vec weight = load(w + v * VL / DTD_BLOCK * block + v * VL % DTD_BLOCK);
                q[v] = map_weight(dual ? DTD_W : map, weight, t->gamma);
                r[v] = vec_positive(weight);
            }
            if (fetch) {
                __builtin_prefetch(ahead, 0, 2);
                ahead += t->ahead_step;
            }
#pragma GCC unroll 16
            for (int p = 0; p < pixels; p++) {
                vec xv = splat(x[p * pixel + c]);
#pragma GCC unroll 4
                for (int v = 0; v < vectors; v++) {
                    a[p][v] += xv * q[v];
                    if (dual)
                        b[p][v] += xv * r[v];
                }
            }
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < pixels; p++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            const int64_t to = p * t->row + v * VL + lane;
            store(t->sum + to, a[p][v] + splat(0)); /* -0 becomes 0, as in sparse_gather.c */
            if (dual)
                store(t->terms + to, b[p][v] + splat(0));
        }
}

enum {
    SUMS = 28,             /* vectors of sums in the largest tile */
    FETCHING = PIXELS / 2, /* pixels that leave time to fetch weights meanwhile */
};

/* Every number of pixels up to the tile's, so that a row of any width divides into tiles of nearly equal size. */
ALWAYS_INLINE void run_pixels(const direct_tile *t, int pixels, const int vectors, const int map, int lane)
{
    const int per_pixel = vectors * (map == DUAL_MAP ? 2 : 1);
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        if (n <= PIXELS && n * per_pixel <= SUMS && n >= FETCHING && t->ahead)                                         \
            run_tile(t, n, vectors, map, lane, 1);                                                                     \
        else if (n <= PIXELS && n * per_pixel <= SUMS)                                                                 \
            run_tile(t, n, vectors, map, lane, 0);                                                                     \
        break;
    switch (pixels) {
        CASE(1)
        CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
    }
#undef CASE
}

typedef void (*tile_function)(const direct_tile *t, int pixels);

/* The tiles of one weight map: of one block, in passes over its vectors, and of a pair of blocks. */
#define TILES(map)                                                                                                     \
    static void block_##map(const direct_tile *t, int pixels)                                                          \
    {                                                                                                                  \
        const int vectors = map == DUAL_MAP ? DUAL_VECTORS : SINGLE_VECTORS;                                           \
        for (int lane = 0; lane < DTD_BLOCK; lane += vectors * VL)                                                     \
            run_pixels(t, pixels, vectors, map, lane);                                                                 \
    }                                                                                                                  \
    static void pair_##map(const direct_tile *t, int pixels)                                                           \
    {                                                                                                                  \
        if (PAIRS)                                                                                                     \
            run_pixels(t, pixels, 2, map, 0);                                                                          \
    }

EACH_MAP(TILES)

#define ENTRY(map) [map] = {block_##map, pair_##map},
static const tile_function TILE_FUNCTIONS[][2] = {EACH_MAP(ENTRY)};

/* ----------------------------------------------------------------------------------------------------------- driver */

/* Weights of a group that stay in a core's second cache: then x passes once, else the weights do. */
enum { CACHED_WEIGHTS = (1 << 19) / sizeof(real), ITEMS = 16 }; /* ITEMS: of a thread at least, where units share */

/* Where weights come from memory: a share of those that this thread multiplies next, which are in its next range where
 * this one ends (dtd_parallel hands ranges out in order). */
static void find_ahead(const dense_job *job, direct_tile *t, int64_t item, int64_t first, int64_t last)
{
    const dtd_step *s = &job->s;
    const int64_t n_tiles = job->rows * job->tiles, tile = item % n_tiles;
    int64_t next = item + n_tiles;
    if (next >= last)
        next += (job->n_threads - 1) * (last - first);
    t->ahead = NULL;
    if (job->tiles_outside || next >= s->groups * job->units * n_tiles)
        return;
    const int64_t group = next / (n_tiles * job->units), block = next / n_tiles % job->units * job->span,
                  n = min64(job->span, job->blocks - block) * DTD_BLOCK * (int64_t)sizeof(real);
    const char *w = (const char *)(vector(&s->weight, job->bases) + (group * job->blocks + block) * job->block);
    t->ahead = w + n * t->n_taps * t->c_in * tile / n_tiles;
    t->ahead_step = ceil_div(n, n_tiles);
}

enum {
    PRODUCTS = 3, /* of an item: y, and of a pair the terms of x+ and of x- beside it */
    MOST_ROW = 256,
};

/* terms = those of x+, and then those of x- */
static void add_terms(real *terms, const real *more, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL)
        store(terms + i, load(terms + i) + load(more + i));
}

static void run_direct(void *context, int64_t first, int64_t last)
{
    const dense_job *job = context;
    const dtd_step *s = &job->s;
    const int64_t *shape = s->out.shape;
    const dtd_view *const inputs[PRODUCTS] = {&s->x, &s->other, &s->shift};
    const int maps[PRODUCTS] = {job->map, DTD_W_POSITIVE, DTD_W_NEGATIVE}, products = job->pair ? PRODUCTS : 1;
    const real *weight = vector(&s->weight, job->bases);
    real sums[PRODUCTS][PIXELS * MOST_ROW] __attribute__((aligned(64)));
    direct_tile tile = {.taps = table(&s->taps, job->bases),
                        .n_taps = s->n_taps,
                        .c_in = job->c_in,
                        .block = job->block,
                        .row = job->gang * job->span * DTD_BLOCK,
                        .gamma = s->gamma};
    const int64_t n_tiles = job->rows * job->tiles, gangs = ceil_div(job->units, job->gang);
    for (int64_t item = first; item < last; item++) {
        int64_t group = item / (n_tiles * gangs), rest = item % (n_tiles * gangs);
        int64_t gang = job->tiles_outside ? rest % gangs : rest / n_tiles,
                row_tile = job->tiles_outside ? rest / gangs : rest % n_tiles;
        int64_t block = gang * job->gang * job->span, n_blocks = min64(job->gang * job->span, job->blocks - block);
        int64_t t = row_tile % job->tiles, row = row_tile / job->tiles;
        int64_t h = row % shape[AXIS_H], d = row / shape[AXIS_H] % shape[AXIS_D],
                n = row / shape[AXIS_H] / shape[AXIS_D];
        int64_t w = shape[AXIS_W] * t / job->tiles, c = block * DTD_BLOCK;
        dtd_site site = {.n_pixels = (int)(shape[AXIS_W] * (t + 1) / job->tiles - w),
                         .n_channels = (int)min64(n_blocks * DTD_BLOCK, job->c_out - c)};
        NAME(locate)(&site, s, job->bases, n, group * job->c_out + c, d, h, w);
        find_ahead(job, &tile, item, first, last);
        for (int64_t b = 0; b < n_blocks; b += job->span) {
            const int64_t at_once = min64(job->span, n_blocks - b);
            NAME(fetch)(s, &site, b * DTD_BLOCK, at_once * DTD_BLOCK);
            tile.w = weight + (group * job->blocks + block + b) * job->block;
            tile.terms = sums[1] + b * DTD_BLOCK;
            for (int k = 0; k < products; k++) {
                const int64_t *stride = inputs[k]->stride;
                tile.x = reals(inputs[k], job->bases) + n * stride[AXIS_N] + group * job->c_in + d * stride[AXIS_D] +
                         h * stride[AXIS_H] + w * stride[AXIS_W];
                tile.pixel = stride[AXIS_W];
                tile.sum = sums[k] + b * DTD_BLOCK;
                TILE_FUNCTIONS[maps[k]][at_once - 1](&tile, site.n_pixels);
            }
        }
        if (job->pair)
            add_terms(sums[1], sums[2], site.n_pixels * tile.row);
        if (job->neuron)
            NAME(finish_neuron_rows)(s, &site, sums[0], s->dual || job->pair ? sums[1] : NULL, tile.row);
        else
            NAME(finish_taps_rows)(s, &site, sums[0], tile.row);
    }
}

void NAME(direct)(dense_job *job, int n_threads)
{
    const dtd_step *s = &job->s;
    const int64_t *shape = s->out.shape;
    int few = shape[AXIS_W] <= PIXELS / 2; /* a dual pair of blocks fits when half a tile of pixels is all there is */
    job->span = PAIRS && job->blocks > 1 && (job->map != DUAL_MAP || few) ? 2 : 1;
    job->units = ceil_div(job->blocks, job->span);
    job->tiles = ceil_div(shape[AXIS_W], PIXELS);
    job->n_threads = n_threads;
    job->tiles_outside = job->blocks * job->block <= CACHED_WEIGHTS;
    const int64_t n_tiles = s->groups * job->rows * job->tiles;
    /* an epilogue that walks rows of memory is the faster, but all threads want items */
    const int64_t most = MOST_ROW / (DTD_BLOCK * job->span),
                  least = n_threads > 1 ? ceil_div(n_threads * ITEMS, n_tiles) : 1;
    job->gang = job->tiles_outside ? max64(1, min64(most, job->units / least)) : 1;
    job->gang = ceil_div(job->units, ceil_div(job->units, job->gang)); /* equal ones, where that goes */
    int64_t items = n_tiles * ceil_div(job->units, job->gang);
    /* multiply-adds of an item */
    int64_t work = max64(1, s->n_taps * job->c_in * DTD_BLOCK * job->gang * min64(shape[AXIS_W], PIXELS));
    int64_t grain = ceil_div(1 << 18, work);
    const int64_t units = s->groups * job->units;
    if (!job->tiles_outside && units >= 4 * (int64_t)n_threads) /* whole ones, whose weights are fetched ahead */
        grain = max64(grain, job->rows * job->tiles * ceil_div(units, 8 * (int64_t)n_threads));
    dtd_parallel(n_threads, items, grain, run_direct, job);
}
