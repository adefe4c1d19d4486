/* depthwise.c: taps with one weight per channel (depthwise convolutions, average pools, the operands of an add).
 *
 *     sum[p,c] = sum_k x[p + tap_k, c] wm(w[k,c])        (w absent: 1)
 */
#include "base/epilogue.h"
#include "base/simd.h"

enum { PIXELS_AT_ONCE = 4 };

typedef struct {
    const real *x, *w; /* at the tile's first pixel and channel; w may be NULL */
    const int64_t *taps;
    int64_t n_taps, pixel, channels; /* channels of x, the distance between the weights of two taps */
    int lanes;                       /* channels of this vector that exist */
    real gamma;
    real *sum, *terms; /* [pixel][DTD_BLOCK] */
} depthwise_tile;

/* One vector of channels by `pixels` pixels; `pixels`, `map` and `full` are constants wherever this is inlined. */
ALWAYS_INLINE void run_tile(const depthwise_tile *t, const int pixels, const int map, const int full)
{
    const int dual = map == DUAL_MAP;
    vec a[PIXELS_AT_ONCE], b[PIXELS_AT_ONCE];
#pragma GCC unroll 16
    for (int p = 0; p < pixels; p++)
        a[p] = b[p] = (vec){0};
    for (int64_t k = 0; k < t->n_taps; k++) {
        const real *x = t->x + t->taps[k], *w = t->w + k * t->channels;
        vec weight = t->w == NULL ? splat(1) : full ? load(w) : load_some(w, t->lanes);
        vec q = map_weight(dual ? DTD_W : map, weight, t->gamma), r = vec_positive(weight);
#pragma GCC unroll 16
        for (int p = 0; p < pixels; p++) {
            vec xv = full ? load(x + p * t->pixel) : load_some(x + p * t->pixel, t->lanes);
            a[p] += xv * q;
            if (dual)
                b[p] += xv * r;
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < pixels; p++) {
        store(t->sum + p * DTD_BLOCK, a[p]);
        if (dual)
            store(t->terms + p * DTD_BLOCK, b[p]);
    }
}

typedef void (*tile_function)(const depthwise_tile *t, int full);

#define TILES(map)                                                                                                     \
    static void pixels_##map(const depthwise_tile *t, int full)                                                        \
    {                                                                                                                  \
        full ? run_tile(t, PIXELS_AT_ONCE, map, 1) : run_tile(t, PIXELS_AT_ONCE, map, 0);                              \
    }                                                                                                                  \
    static void pixel_##map(const depthwise_tile *t, int full)                                                         \
    {                                                                                                                  \
        full ? run_tile(t, 1, map, 1) : run_tile(t, 1, map, 0);                                                        \
    }

EACH_MAP(TILES)

#define ENTRY(map) [map] = {pixel_##map, pixels_##map},
static const tile_function TILE_FUNCTIONS[][2] = {EACH_MAP(ENTRY)};

/* ----------------------------------------------------------------------------------------------------------- driver */

typedef struct {
    dtd_step s; /* with merged pixels */
    void *const *bases;
    int neuron, map;
    int64_t rows, tiles, blocks; /* rows of pixels, tiles of a row, blocks of channels */
} depthwise_job;

static void run_depthwise(void *context, int64_t first, int64_t last)
{
    const depthwise_job *job = context;
    const dtd_step *s = &job->s;
    const int64_t *shape = s->out.shape, *x_stride = s->x.stride;
    const real *x = reals(&s->x, job->bases), *weight = vector(&s->weight, job->bases);
    real sums[2][DTD_TILE_PIXELS * DTD_BLOCK] = {{0}};
    depthwise_tile tile = {.taps = table(&s->taps, job->bases),
                           .n_taps = s->n_taps,
                           .pixel = x_stride[AXIS_W],
                           .channels = shape[AXIS_C],
                           .gamma = s->gamma};
    for (int64_t item = first; item < last; item++) { /* (row, tile of the row, block) */
        int64_t c = item % job->blocks * DTD_BLOCK, t = item / job->blocks % job->tiles,
                row = item / job->blocks / job->tiles;
        int64_t h = row % shape[AXIS_H], d = row / shape[AXIS_H] % shape[AXIS_D],
                n = row / shape[AXIS_H] / shape[AXIS_D];
        int64_t w = t * DTD_TILE_PIXELS;
        dtd_site site = {.n_pixels = (int)min64(DTD_TILE_PIXELS, shape[AXIS_W] - w),
                         .n_channels = (int)min64(DTD_BLOCK, shape[AXIS_C] - c)};
        const real *x_tile =
            x + n * x_stride[AXIS_N] + c + d * x_stride[AXIS_D] + h * x_stride[AXIS_H] + w * x_stride[AXIS_W];
        NAME(locate)(&site, s, job->bases, n, c, d, h, w);
        NAME(fetch)(s, &site);
        for (int lane = 0; lane < site.n_channels; lane += VL)
            for (int p = 0; p < site.n_pixels;) {
                int many = p + PIXELS_AT_ONCE <= site.n_pixels;
                tile.x = x_tile + lane + p * tile.pixel;
                tile.w = weight ? weight + c + lane : NULL;
                tile.lanes = site.n_channels - lane;
                tile.sum = sums[0] + p * DTD_BLOCK + lane;
                tile.terms = sums[1] + p * DTD_BLOCK + lane;
                TILE_FUNCTIONS[job->map][many](&tile, tile.lanes >= VL);
                p += many ? PIXELS_AT_ONCE : 1;
            }
        if (job->neuron)
            NAME(finish_neuron)(s, &site, sums[0], s->dual ? sums[1] : NULL);
        else
            NAME(finish_taps)(s, &site, sums[0]);
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
    job.blocks = ceil_div(shape[AXIS_C], DTD_BLOCK);
    dtd_parallel(n_threads, job.rows * job.tiles * job.blocks, 16, run_depthwise, &job);
}

void NAME(neuron_channel)(const dtd_step *s, void *const *bases, int n_threads) { depthwise(s, bases, n_threads, 1); }
void NAME(taps_channel)(const dtd_step *s, void *const *bases, int n_threads) { depthwise(s, bases, n_threads, 0); }
