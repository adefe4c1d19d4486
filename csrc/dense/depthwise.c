/* depthwise.c: taps with one weight per channel (depthwise convolutions, average pools, the operands of an add).
 *
 *     sum[p,c] = sum_k x[p + tap_k, c] wm(w[k,c])        (w absent: 1)
 *
 * An item is some pixels of one row by some channels.  A vector of channels passes over its pixels, so many at a time
 * that a load of weights serves them all and their chains of sums fill the processor.
 */
#include "base/epilogue.h"
#include "base/simd.h"

enum {
    MANY = WIDE ? 8 : 4, /* pixels at a time */
    FEW = MANY / 2,
    CHANNELS = 64, /* of an item */
};

typedef struct {
    const real *x, *w; /* at the item's first pixel and channel; w may be NULL */
    const int64_t *taps;
    int64_t n_taps, n_pixels, n_channels, pixel, tap; /* distances of pixels, and of the weights of two taps */
    int64_t ahead;                                    /* from x to what the next row of items reads first, or 0 */
    real gamma;
    real *sum, *terms; /* [pixel][CHANNELS] */
} depthwise_item;

/* `pixels` pixels from p, one vector of channels from c; `pixels`, `map` and `full` are constants wherever this is
 * inlined. */
ALWAYS_INLINE void run_tile(const depthwise_item *t, int64_t p, int64_t c, const int pixels, const int map,
                            const int full)
{
    const int dual = map == DUAL_MAP;
    const int64_t lanes = t->n_channels - c;
    const real *from = t->x + p * t->pixel + c, *w = t->w ? t->w + c : NULL;
    vec a[MANY], b[MANY];
#pragma GCC unroll 16
    for (int q = 0; q < pixels; q++)
        a[q] = b[q] = (vec){0};
    for (int64_t k = 0; k < t->n_taps; k++) {
        const real *x = from + t->taps[k];
        vec weight = !w ? splat(1) : full ? load(w + k * t->tap) : load_some(w + k * t->tap, lanes);
        vec wm = map_weight(dual ? DTD_W : map, weight, t->gamma), positive = vec_positive(weight);
#pragma GCC unroll 16
        for (int q = 0; q < pixels; q++) {
            vec xv = full ? load(x + q * t->pixel) : load_some(x + q * t->pixel, lanes);
            a[q] += xv * wm;
            if (dual)
                b[q] += xv * positive;
        }
    }
#pragma GCC unroll 16
    for (int q = 0; q < pixels; q++) {
        if (t->ahead)
            __builtin_prefetch(from + q * t->pixel + t->ahead);
        store(t->sum + (p + q) * CHANNELS + c, a[q]);
        if (dual)
            store(t->terms + (p + q) * CHANNELS + c, b[q]);
    }
}

/* A vector of channels over all pixels: the last ones again, where that fills a tile. */
ALWAYS_INLINE void run_vector(const depthwise_item *t, int64_t c, const int map, const int full)
{
    const int64_t n = t->n_pixels;
    int64_t p = 0;
    for (; p + MANY <= n; p += MANY)
        run_tile(t, p, c, MANY, map, full);
    if (p < n && n - p > FEW && n >= MANY) {
        run_tile(t, n - MANY, c, MANY, map, full);
        return;
    }
    for (; p + FEW <= n; p += FEW)
        run_tile(t, p, c, FEW, map, full);
    if (p < n && n - p > 1 && n >= FEW) {
        run_tile(t, n - FEW, c, FEW, map, full);
        return;
    }
    for (; p < n; p++)
        run_tile(t, p, c, 1, map, full);
}

#define ITEMS(map)                                                                                                     \
    static void item_##map(const depthwise_item *t)                                                                    \
    {                                                                                                                  \
        int64_t c = 0;                                                                                                 \
        for (; c + VL <= t->n_channels; c += VL)                                                                       \
            run_vector(t, c, map, 1);                                                                                  \
        if (c < t->n_channels)                                                                                         \
            run_vector(t, c, map, 0);                                                                                  \
    }

EACH_MAP(ITEMS)

#define ENTRY(map) [map] = item_##map,
static void (*const ITEM_FUNCTIONS[])(const depthwise_item *t) = {EACH_MAP(ENTRY)};

/* ----------------------------------------------------------------------------------------------------------- driver */

typedef struct {
    dtd_step s; /* with merged pixels */
    void *const *bases;
    int neuron, map;
    int64_t rows, tiles, parts; /* rows of pixels, tiles of a row, parts of the channels */
} depthwise_job;

static void run_depthwise(void *context, int64_t first, int64_t last)
{
    const depthwise_job *job = context;
    const dtd_step *s = &job->s;
    const int64_t *shape = s->out.shape, *x_stride = s->x.stride, *taps = table(&s->taps, job->bases);
    const real *x = reals(&s->x, job->bases), *weight = vector(&s->weight, job->bases);
    /* zeros: the epilogue may read a block to its end */
    real sums[2][DTD_TILE_PIXELS * CHANNELS] __attribute__((aligned(64))) = {{0}};
    depthwise_item of = {.taps = taps,
                         .n_taps = s->n_taps,
                         .pixel = x_stride[AXIS_W],
                         .tap = shape[AXIS_C],
                         .gamma = s->gamma,
                         .sum = sums[0],
                         .terms = sums[1]};
    for (int64_t item = first; item < last; item++) { /* (row, tile of the row, part of the channels) */
        int64_t c = item % job->parts * CHANNELS, t = item / job->parts % job->tiles,
                row = item / job->parts / job->tiles;
        int64_t h = row % shape[AXIS_H], d = row / shape[AXIS_H] % shape[AXIS_D],
                n = row / shape[AXIS_H] / shape[AXIS_D];
        int64_t w = t * DTD_TILE_PIXELS;
        dtd_site site = {.n_pixels = (int)min64(DTD_TILE_PIXELS, shape[AXIS_W] - w),
                         .n_channels = (int)min64(CHANNELS, shape[AXIS_C] - c)};
        NAME(locate)(&site, s, job->bases, n, c, d, h, w);
        NAME(fetch)(s, &site, 0, site.n_channels);
        of.x = x + n * x_stride[AXIS_N] + c + d * x_stride[AXIS_D] + h * x_stride[AXIS_H] + w * x_stride[AXIS_W];
        of.w = weight ? weight + c : NULL;
        of.n_pixels = site.n_pixels, of.n_channels = site.n_channels;
        of.ahead = h + 1 < shape[AXIS_H] && s->n_taps ? taps[s->n_taps - 1] + x_stride[AXIS_H] : 0;
        ITEM_FUNCTIONS[job->map](&of);
        if (job->neuron)
            NAME(finish_neuron_rows)(s, &site, sums[0], s->dual ? sums[1] : NULL, CHANNELS);
        else
            NAME(finish_taps_rows)(s, &site, sums[0], CHANNELS);
    }
}

static void depthwise(const dtd_step *s, void *const *bases, int n_threads, int neuron)
{
    depthwise_job job = {
        .s = *s, .bases = bases, .neuron = neuron, .map = neuron ? (s->dual ? DUAL_MAP : DTD_W) : s->weight_map};
    NAME(merge_pixels)(&job.s);
    const int64_t *shape = job.s.out.shape;
    job.rows = shape[AXIS_N] * shape[AXIS_D] * shape[AXIS_H];
    job.tiles = ceil_div(shape[AXIS_W], DTD_TILE_PIXELS);
    job.parts = ceil_div(shape[AXIS_C], CHANNELS);
    dtd_parallel(n_threads, job.rows * job.tiles * job.parts, 4, run_depthwise, &job);
}

void NAME(neuron_channel)(const dtd_step *s, void *const *bases, int n_threads) { depthwise(s, bases, n_threads, 1); }
void NAME(taps_channel)(const dtd_step *s, void *const *bases, int n_threads) { depthwise(s, bases, n_threads, 0); }
