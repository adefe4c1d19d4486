/* planar.c: the products of dense.c with so few outputs that a block of them would be mostly zeros, as on 1 or 6 channels.
 *
 *     sum[p,j] = sum_k sum_i x[p + tap_k, i] wm(w[k,i,j]),    j < c_out <= MOST_OUTPUTS
 *
 * Vectors run along the pixels of a row.  An item is some rows of one image: their x is turned into planes, one per channel, so that a
 * tap is a distance within a plane.  Each sum is one chain over (k, i), as in dense.c.
 */
#include "dense.h"
#include "simd.h"

#include <string.h>

/* vectors of sums in registers, of 32 or of 16 */
#if defined(__AVX512F__) || defined(__aarch64__)
enum { SUMS = 24 };
#else
enum { SUMS = 12 };
#endif

enum {
    MOST_OUTPUTS = 8,
    AT_ONCE = 8,                        /* vectors of pixels in a register tile, at most */
    PLANES = (1 << 16) / sizeof(real),  /* elements of x, turned, .. */
    WEIGHTS = (1 << 16) / sizeof(real), /* .. of weights .. */
    MOST_TAPS = 1 << 10,                /* .. and taps that a thread holds on its stack */
    ITEMS_PER_THREAD = 4,
};

/* Vectors of pixels in a register tile. */
#define VECTORS_OF(outputs, dual) (SUMS / ((outputs) * (1 + (dual))) < AT_ONCE ? SUMS / ((outputs) * (1 + (dual))) : AT_ONCE)

typedef struct {
    const real *x[AT_ONCE]; /* in the first plane */
    const real *w;          /* [tap][input][w, w+ if dual][output] */
    const int64_t *taps;    /* pixels */
    int64_t n_taps, c_in, plane;
    real (*sum)[2][MOST_OUTPUTS][VL]; /* [vector][w, w+] */
} planar_tile;

/* `vectors`, `outputs` and `dual` are constants wherever this is inlined. */
ALWAYS_INLINE void run_tile(const planar_tile *t, const int vectors, const int outputs, const int dual)
{
    const real *w = t->w;
    vec a[2][AT_ONCE][MOST_OUTPUTS];
#pragma GCC unroll 2
    for (int b = 0; b <= dual; b++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++)
#pragma GCC unroll 8
            for (int j = 0; j < outputs; j++)
                a[b][v][j] = (vec){0};
    for (int64_t k = 0; k < t->n_taps; k++) {
        int64_t at = t->taps[k];
        for (int64_t i = 0; i < t->c_in; i++, at += t->plane, w += outputs * (1 + dual)) {
            vec x[AT_ONCE];
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++)
                x[v] = load(t->x[v] + at);
#pragma GCC unroll 2
            for (int b = 0; b <= dual; b++)
#pragma GCC unroll 8
                for (int j = 0; j < outputs; j++) {
                    vec wj = splat(w[b * outputs + j]);
#pragma GCC unroll 8
                    for (int v = 0; v < vectors; v++)
                        a[b][v][j] += x[v] * wj;
                }
        }
    }
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++)
#pragma GCC unroll 8
        for (int j = 0; j < outputs; j++)
#pragma GCC unroll 2
            for (int b = 0; b <= dual; b++)
                store(t->sum[v][b][j], a[b][v][j] + splat(0)); /* -0 becomes 0, as in dense.c */
}

typedef void (*tile_function)(const planar_tile *t);

#define TILES(n)                                                                                                                           \
    static void vectors_##n(const planar_tile *t) { run_tile(t, VECTORS_OF(n, 0), n, 0); }                                                 \
    static void vector_##n(const planar_tile *t) { run_tile(t, 1, n, 0); }                                                                 \
    static void dual_vectors_##n(const planar_tile *t) { run_tile(t, VECTORS_OF(n, 1) ? VECTORS_OF(n, 1) : 1, n, 1); }                     \
    static void dual_vector_##n(const planar_tile *t) { run_tile(t, 1, n, 1); }
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)
TILES(7)
TILES(8)

#define ENTRY(n)                                                                                                                           \
    {                                                                                                                                      \
        {vector_##n, vectors_##n}, { dual_vector_##n, dual_vectors_##n }                                                                   \
    }
static const tile_function TILE_FUNCTIONS[][2][2] = {{{0}}, ENTRY(1), ENTRY(2), ENTRY(3), ENTRY(4), ENTRY(5), ENTRY(6), ENTRY(7), ENTRY(8)};

/* ------------------------------------------------------------------------------------------------------------------ driver */

typedef struct {
    const dense_job *dense;
    int64_t pixel, pitch, first, reach; /* elements of a pixel, pixels from row to row; of the first tap, from it to the last */
    int64_t n_rows, row_items;          /* rows that an item may have, items of an image */
    int64_t segments;                   /* of a row, at most VL pixels each */
} planar_job;

/* wm(w) as [tap][input][w, w+ if dual][output] */
static void turn_weights(const dense_job *job, real *to)
{
    const dtd_step *s = &job->s;
    const real *w = vector(&s->weight, job->bases);
    const int dual = job->map == DUAL_MAP;
    for (int64_t ki = 0; ki < s->n_taps * job->c_in; ki++, w += DTD_BLOCK)
        for (int b = 0; b <= dual; b++)
            for (int64_t j = 0; j < job->c_out; j += VL) {
                const int64_t n = min64(VL, job->c_out - j);
                store_some(to, map_any(b ? DTD_W_POSITIVE : dual ? DTD_W : job->map, load(w + j), s->gamma), n);
                to += n;
            }
}

/* planes[i][q] = x[q, i], and VL zeros behind each plane */
static void turn_pixels(const real *x, int64_t pixel, int64_t c_in, int64_t n, int64_t plane, real *planes)
{
    for (int64_t i = 0; i < c_in; i++, planes += plane) {
        int64_t q = 0;
        for (; q + VL <= n; q += VL)
            store(planes + q, load_strided(x + i + q * pixel, pixel));
        for (; q < n; q++)
            planes[q] = x[i + q * pixel];
        store(planes + n, (vec){0});
    }
}

/* strip[p, j] = rows[j][p], channels j in a row */
static void store_turned(const real (*rows)[VL], const dtd_strip *strip, int n_pixels, int n_channels)
{
#if defined(__AVX512F__) && !defined(DTD_DOUBLE)
    const __m512i first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    const __mmask8 channels = (__mmask8)((1u << n_channels) - 1);
    __m512d half[2][4]; /* [channel / 4][pixel % 4]: 4 channels of the pixels 4 apart */
    for (int i = 0; i < 2; i++) {
        __m512 a = (__m512)load(rows[4 * i]), b = (__m512)load(rows[4 * i + 1]);
        __m512 c = (__m512)load(rows[4 * i + 2]), d = (__m512)load(rows[4 * i + 3]);
        __m512d ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b)), ab2 = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
        __m512d cd = _mm512_castps_pd(_mm512_unpacklo_ps(c, d)), cd2 = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
        half[i][0] = _mm512_unpacklo_pd(ab, cd), half[i][1] = _mm512_unpackhi_pd(ab, cd);
        half[i][2] = _mm512_unpacklo_pd(ab2, cd2), half[i][3] = _mm512_unpackhi_pd(ab2, cd2);
    }
    for (int q = 0; q < 4; q++)
        for (int i = 0; i < 2; i++) {
            __m512 two = _mm512_castpd_ps(_mm512_permutex2var_pd(half[0][q], i ? second : first, half[1][q]));
            const int p = 8 * i + q;
            if (p < n_pixels)
                _mm256_mask_storeu_ps(strip->at + p * strip->pixel, channels, _mm512_castps512_ps256(two));
            if (p + 4 < n_pixels)
                _mm256_mask_storeu_ps(strip->at + (p + 4) * strip->pixel, channels, _mm512_extractf32x8_ps(two, 1));
        }
#else
    for (int p = 0; p < n_pixels; p++)
        for (int j = 0; j < n_channels; j++)
            strip->at[p * strip->pixel + j] = rows[j][p];
#endif
}

static int in_a_row(const dtd_strip *strip) { return !strip->at || strip->channel == 1; }

/* The usual epilogues, as in epilogue.c; 0 if this is none of them. */
static int finish_in_planes(const dense_job *job, const dtd_site *site, real (*sum)[MOST_OUTPUTS][VL])
{
    const dtd_step *s = &job->s;
    const int gate = job->neuron && s->mode == DTD_F_GATE;
    const real coefficient = s->coefficient, stabilizer = s->stabilizer;
    if (site->scale.at || site->y_prev.at || site->terms.at || !in_a_row(&site->out) || !in_a_row(&site->factor))
        return 0;
    if (!job->neuron && (s->mode != DTD_M_NONE || s->accumulate))
        return 0;
    if (job->neuron &&
        ((s->activation != DTD_IDENTITY && s->activation != DTD_RELU) || (s->mode != DTD_F_NONE && !gate) || s->select != DTD_ALL))
        return 0;
    for (int64_t j = 0; job->neuron && j < job->c_out; j++) {
        vec y = load(sum[0][j]), d = s->dual ? load(sum[1][j]) : y;
        y += splat(site->bias ? site->bias[j] : 0);
        y = s->activation == DTD_RELU ? vec_positive(y) : y;
        store(sum[0][j], y);
        d += splat(site->bias_d ? site->bias_d[j] : 0);
        if (gate)
            store(sum[1][j], vec_quotient(coefficient * y, vec_stabilised(d, stabilizer)));
    }
    store_turned(sum[0], &site->out, site->n_pixels, site->n_channels);
    if (gate)
        store_turned(sum[1], &site->factor, site->n_pixels, site->n_channels);
    return 1;
}

static void swap_axes(dtd_strip *strip)
{
    int64_t pixel = strip->pixel;
    strip->pixel = strip->channel;
    strip->channel = pixel;
}

/* The sums of some pixels, [output][VL], through the epilogue. */
static void finish(const dense_job *job, dtd_site *site, real (*sum)[MOST_OUTPUTS][VL])
{
    const dtd_step *s = &job->s;
    real tiles[2][DTD_TILE_PIXELS * DTD_BLOCK];
    if (!job->neuron && job->c_out == 1) { /* pixels as the channels of one */
        swap_axes(&site->out), swap_axes(&site->m), swap_axes(&site->scale);
        site->n_channels = site->n_pixels;
        site->n_pixels = 1;
        memcpy(tiles[0], sum[0][0], VL * sizeof(real));
        NAME(finish_taps)(s, site, tiles[0]);
        return;
    }
    if (finish_in_planes(job, site, sum))
        return;
    for (int b = 0; b <= (job->neuron && s->dual); b++)
        for (int p = 0; p < site->n_pixels; p++)
            for (int64_t j = 0; j < job->c_out; j++)
                tiles[b][p * DTD_BLOCK + j] = sum[b][j][p];
    if (job->neuron)
        NAME(finish_neuron)(s, site, tiles[0], s->dual ? tiles[1] : NULL);
    else
        NAME(finish_taps)(s, site, tiles[0]);
}

static void run_planar(void *context, int64_t first, int64_t last)
{
    const planar_job *p = context;
    const dense_job *job = p->dense;
    const dtd_step *s = &job->s;
    const int64_t *shape = s->out.shape, *stride = s->x.stride, *table_of_taps = table(&s->taps, job->bases);
    const int dual = job->map == DUAL_MAP, at_once = VECTORS_OF(job->c_out, dual);
    real planes[PLANES], weights[WEIGHTS], sums[AT_ONCE][2][MOST_OUTPUTS][VL];
    int64_t taps[MOST_TAPS];
    planar_tile tile = {.w = weights, .taps = taps, .n_taps = s->n_taps, .c_in = job->c_in, .sum = sums};
    turn_weights(job, weights);
    for (int64_t k = 0; k < s->n_taps; k++)
        taps[k] = table_of_taps[k] / p->pixel - p->first;
    for (int64_t item = first; item < last; item++) {
        int64_t image = item / p->row_items, d = image % shape[AXIS_D], n = image / shape[AXIS_D];
        int64_t h0 = shape[AXIS_H] * (item % p->row_items) / p->row_items, h1 = shape[AXIS_H] * (item % p->row_items + 1) / p->row_items;
        int64_t n_pixels = (h1 - h0 - 1) * p->pitch + shape[AXIS_W] + p->reach, n_segments = (h1 - h0) * p->segments;
        const real *x = reals(&s->x, job->bases) + n * stride[AXIS_N] + d * stride[AXIS_D] + h0 * stride[AXIS_H];
        tile.plane = n_pixels + VL;
        turn_pixels(x + p->first * p->pixel, p->pixel, job->c_in, n_pixels, tile.plane, planes);
        for (int64_t segment = 0; segment < n_segments;) {
            const int many = segment + at_once <= n_segments;
            dtd_site sites[AT_ONCE];
            for (int v = 0; v < (many ? at_once : 1); v++, segment++) {
                int64_t h = segment / p->segments, of_row = segment % p->segments;
                int64_t w = shape[AXIS_W] * of_row / p->segments, end = shape[AXIS_W] * (of_row + 1) / p->segments;
                sites[v] = (dtd_site){.n_pixels = (int)(end - w), .n_channels = (int)job->c_out};
                NAME(locate)(&sites[v], s, job->bases, n, 0, d, h0 + h, w);
                tile.x[v] = planes + h * p->pitch + w;
            }
            TILE_FUNCTIONS[job->c_out][dual][many](&tile);
            for (int v = 0; v < (many ? at_once : 1); v++)
                finish(job, &sites[v], sums[v]);
        }
    }
}

static int multiple(int64_t a, int64_t of) { return a % of == 0; }

static planar_job planar_job_of(const dense_job *job, int n_threads)
{
    const dtd_step *s = &job->s;
    const int64_t *shape = s->out.shape, *taps = table(&s->taps, job->bases);
    planar_job p = {.dense = job, .pixel = s->x.stride[AXIS_W]};
    int64_t least = taps[0], most = taps[0];
    for (int64_t k = 1; k < s->n_taps; k++) {
        least = min64(least, taps[k]);
        most = max64(most, taps[k]);
    }
    p.pitch = s->x.stride[AXIS_H] / p.pixel;
    p.first = least / p.pixel;
    p.reach = most / p.pixel - p.first;
    p.segments = ceil_div(shape[AXIS_W], VL);
    int64_t room = PLANES / job->c_in - VL - shape[AXIS_W] - p.reach; /* for rows after the first */
    int64_t rows = room < 0 ? 0 : p.pitch > 0 ? 1 + room / p.pitch : shape[AXIS_H];
    int64_t fair = ceil_div(job->rows, (int64_t)n_threads * ITEMS_PER_THREAD);
    p.row_items = ceil_div(shape[AXIS_H], max64(1, min64(rows, fair)));
    p.n_rows = rows;
    return p;
}

/* Whether planes pay: what is left out of a block of outputs against what pixels leave out of their vectors, and the turning. */
int NAME(planar_pays)(const dense_job *job)
{
    const dtd_step *s = &job->s;
    const int64_t *taps = table(&s->taps, job->bases), pixel = s->x.stride[AXIS_W], width = s->out.shape[AXIS_W];
    const int dual = job->map == DUAL_MAP;
    if (s->groups != 1 || job->c_out * (1 + dual) > SUMS || job->c_out > MOST_OUTPUTS || s->n_taps > MOST_TAPS ||
        s->n_taps * job->c_in * job->c_out * (1 + dual) > WEIGHTS || pixel < job->c_in || !multiple(s->x.stride[AXIS_H], pixel) ||
        s->x.stride[AXIS_H] < 0 || s->n_taps * (DTD_BLOCK * width - job->c_out * ceil_div(width, VL) * VL) <= 2 * DTD_BLOCK * width)
        return 0;
    for (int64_t k = 0; k < s->n_taps; k++)
        if (!multiple(taps[k], pixel))
            return 0;
    return planar_job_of(job, 1).n_rows > 0;
}

void NAME(planar)(const dense_job *job, int n_threads)
{
    planar_job p = planar_job_of(job, n_threads);
    const int64_t *shape = job->s.out.shape;
    int64_t work = max64(1, job->s.n_taps * job->c_in * job->c_out * shape[AXIS_W] * (shape[AXIS_H] / p.row_items)); /* of an item */
    dtd_parallel(n_threads, shape[AXIS_N] * shape[AXIS_D] * p.row_items, ceil_div(1 << 17, work), run_planar, &p);
}
