/* inner_product.c: dense tap layers with at most four outputs, such as the transposed product of a first layer.
 *
 *     sum[p,j] = sum_k sum_i x[p + tap_k, i] wm(w[k,i,j]),    j < c_out <= MOST_OUTPUTS
 *
 * A vector holds VL inputs i, since so few outputs would leave most of a vector of outputs empty.  Lane l adds the
 * inputs i = l mod VL of every tap in order; the lanes are added last.  Each thread maps and packs the weights once.
 */
#include "dense.h"
#include "base/simd.h"

#include <string.h>

enum {
    MOST_OUTPUTS = 4,
    WEIGHTS = (1 << 16) / sizeof(real), /* elements of packed weights that a thread holds on its stack */
    AT_ONCE = WIDE ? 7 : 3,             /* pixels of a register tile */
};

typedef struct {
    const real *x;
    const vec *w; /* [tap][vector of inputs][output] */
    const int64_t *taps;
    int64_t n_taps, c_in, pixel;
} inner_product_tile;

/* `pixels` and `outputs` are constants wherever this is inlined. */
ALWAYS_INLINE void run_tile(const inner_product_tile *t, real *sum, const int pixels, const int outputs)
{
    const int64_t c_in = t->c_in;
    const vec *w = t->w;
    vec a[AT_ONCE][MOST_OUTPUTS];
#pragma GCC unroll 8
    for (int p = 0; p < pixels; p++)
#pragma GCC unroll 4
        for (int j = 0; j < outputs; j++)
            a[p][j] = (vec){0};
    for (int64_t k = 0; k < t->n_taps; k++) {
        const real *x = t->x + t->taps[k];
        for (int64_t i = 0; i < c_in; i += VL, w += outputs) {
            const int full = i + VL <= c_in;
#pragma GCC unroll 8
            for (int p = 0; p < pixels; p++) {
                const real *at = x + p * t->pixel + i;
                vec xv = full ? load(at) : load_some(at, c_in - i);
#pragma GCC unroll 4
                for (int j = 0; j < outputs; j++)
                    a[p][j] += xv * w[j];
            }
        }
    }
#pragma GCC unroll 8
    for (int p = 0; p < pixels; p++)
#pragma GCC unroll 4
        for (int j = 0; j < outputs; j++)
            sum[p * DTD_BLOCK + j] = add_lanes(a[p][j]);
}

typedef void (*tile_function)(const inner_product_tile *t, real *sum);

#define TILES(n)                                                                                                       \
    static void pixels_##n(const inner_product_tile *t, real *sum) { run_tile(t, sum, AT_ONCE, n); }                   \
    static void pixel_##n(const inner_product_tile *t, real *sum) { run_tile(t, sum, 1, n); }
TILES(1)
TILES(2)
TILES(3)
TILES(4)

static const tile_function TILE_FUNCTIONS[][2] = {
    {0}, {pixel_1, pixels_1}, {pixel_2, pixels_2}, {pixel_3, pixels_3}, {pixel_4, pixels_4}};

/* wm(w) as [tap][vector of inputs][output], zeros beyond the inputs */
static void pack_weights(const dense_job *job, vec *packed)
{
    const dtd_step *s = &job->s;
    const real *w = vector(&s->weight, job->bases);
    real *to = (real *)packed;
    const int64_t vectors = ceil_div(job->c_in, VL);
    memset(to, 0, (size_t)(s->n_taps * vectors * job->c_out) * sizeof *packed);
    for (int64_t k = 0; k < s->n_taps; k++)
        for (int64_t i = 0; i < job->c_in; i++, w += DTD_BLOCK) {
            real mapped[DTD_BLOCK];
            for (int64_t j = 0; j < job->c_out; j += VL)
                store(mapped + j, map_any(job->map, load(w + j), s->gamma));
            for (int64_t j = 0; j < job->c_out; j++)
                to[((k * vectors + i / VL) * job->c_out + j) * VL + i % VL] = mapped[j];
        }
}

static void run_inner_product(void *context, int64_t first, int64_t last)
{
    const dense_job *job = context;
    const dtd_step *s = &job->s;
    const int64_t *shape = s->out.shape, *x_stride = s->x.stride;
    vec packed[WEIGHTS / VL];
    real sums[DTD_TILE_PIXELS * DTD_BLOCK];
    inner_product_tile tile = {.w = packed,
                               .taps = table(&s->taps, job->bases),
                               .n_taps = s->n_taps,
                               .c_in = job->c_in,
                               .pixel = x_stride[AXIS_W]};
    pack_weights(job, packed);
    for (int64_t item = first; item < last; item++) {
        int64_t t = item % job->tiles, row = item / job->tiles;
        int64_t h = row % shape[AXIS_H], d = row / shape[AXIS_H] % shape[AXIS_D],
                n = row / shape[AXIS_H] / shape[AXIS_D];
        int64_t w = shape[AXIS_W] * t / job->tiles;
        dtd_site site = {.n_pixels = (int)(shape[AXIS_W] * (t + 1) / job->tiles - w), .n_channels = (int)job->c_out};
        NAME(locate)(&site, s, job->bases, n, 0, d, h, w);
        tile.x = reals(&s->x, job->bases) + n * x_stride[AXIS_N] + d * x_stride[AXIS_D] + h * x_stride[AXIS_H] +
                 w * x_stride[AXIS_W];
        for (int p = 0; p < site.n_pixels;) {
            int many = p + AT_ONCE <= site.n_pixels;
            TILE_FUNCTIONS[job->c_out][many](&tile, sums + p * DTD_BLOCK);
            p += many ? AT_ONCE : 1;
            tile.x += (many ? AT_ONCE : 1) * tile.pixel;
        }
        NAME(finish_taps)(s, &site, sums);
    }
}

int NAME(inner_product_suits)(const dense_job *job)
{
    const dtd_step *s = &job->s;
    return !job->neuron && s->groups == 1 && job->c_out <= MOST_OUTPUTS && job->c_in >= VL &&
           s->n_taps * ceil_div(job->c_in, VL) * VL * job->c_out <= WEIGHTS;
}

void NAME(inner_product)(dense_job *job, int n_threads)
{
    job->tiles = ceil_div(job->s.out.shape[AXIS_W], 2 * AT_ONCE);
    int64_t work = max64(1, job->s.n_taps * job->c_in * job->c_out * 2 * AT_ONCE);
    dtd_parallel(n_threads, job->rows * job->tiles, ceil_div(1 << 18, work), run_inner_product, job);
}
