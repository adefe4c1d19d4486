/* sparse_gather.c: dense tap layers whose x has many zeros, as ReLUs and max-pools make them; zeros are skipped.
 *
 *     sum[p,j] = sum_k sum_{i : x[p + tap_k, i] != 0} x[p + tap_k, i] wm(w[k,i,j])
 *
 * The terms are added in the order of direct.c; a skipped term would have added exactly 0, so the bits are the same.
 *
 * A strip is many pixels by a few blocks of output channels.  For one tap and CHUNK channels, the weights of all its
 * blocks stay in the first-level cache while the pixels pass.  A pixel's sums are in registers for all its non-zeros.
 */
#include "dense.h"
#include "base/simd.h"

enum {
    CHUNK = 64,                          /* channels: the bits of a word */
    STRIP = 64,                          /* pixels */
    AHEAD = 4,                           /* pixels from fetching x to using it */
    LINE = 64 / sizeof(real),            /* elements of a cache line */
    MOST_SINGLE = 8,                     /* vectors of sums per pixel */
    MOST_DUAL = WIDE || VL == 2 ? 8 : 4, /* the same if as many more are for w+; at least a block */
    MOST_BLOCKS = MOST_SINGLE * VL / DTD_BLOCK,
};

/* Bit i: x[i] is not 0 (NaN is not), i < n <= CHUNK. */
ALWAYS_INLINE uint64_t nonzero(const real *x, int64_t n)
{
    uint64_t bits = 0;
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + VL <= n; i += VL)
        bits |= (uint64_t)MM_MASK(_mm512_cmp)((MM_TYPE(__m512))load(x + i), MM(_mm512_setzero)(), _CMP_NEQ_UQ) << i;
#elif defined(__AVX2__)
    for (; i + VL <= n; i += VL)
        bits |= (uint64_t)(uint32_t)MM(_mm256_movemask)(
                    MM(_mm256_cmp)((MM_TYPE(__m256))load(x + i), MM(_mm256_setzero)(), _CMP_NEQ_UQ))
                << i;
#elif defined(__SSE2__)
    for (; i + VL <= n; i += VL)
        bits |= (uint64_t)(uint32_t)MM(_mm_movemask)(MM(_mm_cmpneq)((MM_TYPE(__m128))load(x + i), MM(_mm_setzero)()))
                << i;
#endif
    for (; i < n; i++)
        bits |= (uint64_t)(x[i] != 0) << i;
    return bits;
}

typedef struct {
    const real *x, *w;
    const int64_t *taps, *pixels; /* offsets in x */
    int64_t n_taps, n_pixels, c_in, block;
    real gamma;
    real *sum, *terms; /* [pixel][block of the item][DTD_BLOCK] */
} strip;

/* `vectors` and `map` are constants wherever this is inlined. */
ALWAYS_INLINE void run_strip(const strip *t, const int vectors, const int map)
{
    const int dual = map == DUAL_MAP;
    const int64_t c_in = t->c_in, n_pixels = t->n_pixels;
    real *const sum = t->sum, *const terms = t->terms;
    for (int64_t k = 0; k < t->n_taps; k++)
        for (int64_t first = 0; first < c_in; first += CHUNK) {
            const int64_t n = min64(CHUNK, c_in - first);
            const real *w[MOST_SINGLE]; /* one address each, or the compiler spends the loop on sums of strides */
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) {
                w[v] = t->w + (k * c_in + first) * DTD_BLOCK + v * VL / DTD_BLOCK * t->block + v * VL % DTD_BLOCK;
                __asm__("" : "+r"(w[v]));
            }
            for (int64_t p = 0; p < n_pixels; p++) {
                const real *x = t->x + t->pixels[p] + t->taps[k] + first;
                /* the chunk after this one */
                for (int64_t c = CHUNK * p / n_pixels; c < CHUNK * (p + 1) / n_pixels; c++)
#pragma GCC unroll 8
                    for (int v = 0; v < vectors; v++)
                        __builtin_prefetch(w[v] + (CHUNK + c) * DTD_BLOCK, 0, 2);
                const real *ahead = t->x + t->pixels[min64(p + AHEAD, n_pixels - 1)] + t->taps[k] + first;
                for (int64_t c = 0; c < n; c += LINE)
                    __builtin_prefetch(ahead + c);
                uint64_t left = nonzero(x, n);
                if (!left)
                    continue;
                /* registers: every index is a constant once the loops are unrolled */
                vec a[MOST_SINGLE], b[MOST_SINGLE];
#pragma GCC unroll 8
                for (int v = 0; v < vectors; v++) {
                    a[v] = load(sum + (p * vectors + v) * VL);
                    if (dual)
                        b[v] = load(terms + (p * vectors + v) * VL);
                }
                for (; left; left &= left - 1) {
                    const int64_t c = __builtin_ctzll(left);
                    const vec xv = splat(x[c]);
#pragma GCC unroll 8
                    for (int v = 0; v < vectors; v++) {
                        vec weight = load(w[v] + c * DTD_BLOCK);
                        if (dual)
                            IN_REGISTER(weight); /* or it is loaded twice, and loads are what limits this loop */
                        a[v] += xv * map_weight(dual ? DTD_W : map, weight, t->gamma);
                        if (dual)
                            b[v] += xv * vec_positive(weight);
                    }
                }
#pragma GCC unroll 8
                for (int v = 0; v < vectors; v++) {
                    store(sum + (p * vectors + v) * VL, a[v]);
                    if (dual)
                        store(terms + (p * vectors + v) * VL, b[v]);
                }
            }
        }
}

typedef void (*strip_function)(const strip *t, int blocks);

#define STRIPS(map)                                                                                                    \
    static void strip_##map(const strip *t, int blocks)                                                                \
    {                                                                                                                  \
        const int most = (map == DUAL_MAP ? MOST_DUAL : MOST_SINGLE) * VL / DTD_BLOCK;                                 \
        switch (blocks) {                                                                                              \
            CASE(map, 1) CASE(map, 2) CASE(map, 3) CASE(map, 4) CASE(map, 5) CASE(map, 6) CASE(map, 7) CASE(map, 8)    \
        }                                                                                                              \
    }
#define CASE(map, n)                                                                                                   \
    case n:                                                                                                            \
        if (n <= most)                                                                                                 \
            run_strip(t, n *DTD_BLOCK / VL, map);                                                                      \
        break;

EACH_MAP(STRIPS)

#define ENTRY(map) [map] = strip_##map,
static const strip_function STRIP_FUNCTIONS[] = {EACH_MAP(ENTRY)};

/* ----------------------------------------------------------------------------------------------------------- driver */

/* Pixel number q of all rows: its indices, the offset of its x. */
typedef struct {
    int64_t n, d, h, w, x;
} place;

static place place_of(const dtd_step *s, int64_t q)
{
    const int64_t *shape = s->out.shape, *stride = s->x.stride;
    place at;
    at.w = q % shape[AXIS_W], q /= shape[AXIS_W];
    at.h = q % shape[AXIS_H], q /= shape[AXIS_H];
    at.d = q % shape[AXIS_D], at.n = q / shape[AXIS_D];
    at.x = at.n * stride[AXIS_N] + at.d * stride[AXIS_D] + at.h * stride[AXIS_H] + at.w * stride[AXIS_W];
    return at;
}

/* The sums of some pixels of one block, as the epilogue takes them. */
static real *tile_of(const real *sum, int64_t n_blocks, int n_pixels, real *tile)
{
    for (int p = 0; p < n_pixels; p++)
        memcpy(tile + p * DTD_BLOCK, sum + p * n_blocks * DTD_BLOCK, DTD_BLOCK * sizeof *tile);
    return tile;
}

/* The site of a tile: pixels q.. of one row, up to DTD_TILE_PIXELS and below `end`, by one block of channels. */
static dtd_site site_of(const dense_job *job, int64_t q, int64_t end, int64_t c)
{
    const dtd_step *s = &job->s;
    place at = place_of(s, q);
    dtd_site site = {.n_pixels = (int)min64(min64(DTD_TILE_PIXELS, end - q), s->out.shape[AXIS_W] - at.w),
                     .n_channels = (int)min64(DTD_BLOCK, job->c_out - c)};
    NAME(locate)(&site, s, job->bases, at.n, c, at.d, at.h, at.w);
    return site;
}

/* All tiles of a strip through the epilogue, the next ones fetched meanwhile. */
static void finish_strip(const dense_job *job, const strip *t, int64_t q0, int64_t c0, int64_t n_blocks)
{
    const dtd_step *s = &job->s;
    const int64_t end = q0 + t->n_pixels;
    real tiles[2][DTD_TILE_PIXELS * DTD_BLOCK];
    dtd_site sites[MOST_BLOCKS];
    for (int64_t b = 0; b < n_blocks; b++)
        sites[b] = site_of(job, q0, end, c0 + b * DTD_BLOCK);
    for (int64_t q = q0; q < end;) {
        int64_t next = q + sites[0].n_pixels;
        for (int64_t b = 0; b < n_blocks; b++) {
            const dtd_site site = sites[b];
            int64_t from = ((q - q0) * n_blocks + b) * DTD_BLOCK;
            real *sum = tile_of(t->sum + from, n_blocks, site.n_pixels, tiles[0]);
            if (next < end) {
                sites[b] = site_of(job, next, end, c0 + b * DTD_BLOCK);
                NAME(fetch)(s, &sites[b], 0, DTD_BLOCK);
            }
            real *terms = s->dual ? tile_of(t->terms + from, n_blocks, site.n_pixels, tiles[1]) : NULL;
            if (job->neuron)
                NAME(finish_neuron)(s, &site, sum, terms);
            else
                NAME(finish_taps)(s, &site, sum);
        }
        q = next;
    }
}

static void run_sparse_gather(void *context, int64_t first, int64_t last)
{
    const dense_job *job = context;
    const dtd_step *s = &job->s;
    const real *weight = vector(&s->weight, job->bases);
    const int64_t n_pixels = job->rows * s->out.shape[AXIS_W], n_strips = ceil_div(n_pixels, job->strip);
    int64_t pixels[STRIP];
    real sums[2][STRIP * MOST_BLOCKS * DTD_BLOCK] __attribute__((aligned(64)));
    strip t = {.x = reals(&s->x, job->bases),
               .taps = table(&s->taps, job->bases),
               .pixels = pixels,
               .n_taps = s->n_taps,
               .c_in = job->c_in,
               .block = job->block,
               .gamma = s->gamma,
               .sum = sums[0],
               .terms = sums[1]};
    for (int64_t item = first; item < last; item++) {
        int64_t unit = item / n_strips, q = n_pixels * (item % n_strips) / n_strips,
                end = n_pixels * (item % n_strips + 1) / n_strips;
        int64_t block = job->blocks * unit / job->units, n_blocks = job->blocks * (unit + 1) / job->units - block;
        t.n_pixels = end - q;
        for (int64_t p = 0; p < t.n_pixels; p++)
            pixels[p] = place_of(s, q + p).x;
        for (int i = 0; i <= s->dual; i++)
            memset(sums[i], 0, (size_t)(t.n_pixels * n_blocks * DTD_BLOCK) * sizeof(real));
        t.w = weight + block * job->block;
        STRIP_FUNCTIONS[job->map](&t, (int)n_blocks);
        finish_strip(job, &t, q, block * DTD_BLOCK, n_blocks);
    }
}

enum {
    SAMPLE = 32,          /* pixels */
    ITEMS_PER_THREAD = 2, /* at least, that no thread waits long for another */
    OVERHEAD = 48,        /* what an item does once per pixel, as so many inputs */
};

/* Share of non-zeros, in percent, up to which leaving out zeros was measured to be faster, by vectors of sums per
 * pixel. */
static const int MOST_NONZERO[2][9] = {{0, 0, 15, 25, 34, 40, 44, 48, 52}, {0, 0, 40, 52, 62, 68, 72, 76, 80}};

static int64_t blocks_at_most(const dense_job *job)
{
    return (job->map == DUAL_MAP ? MOST_DUAL : MOST_SINGLE) * VL / DTD_BLOCK;
}

int NAME(sparse_gather_suits)(const dense_job *job) { return job->s.groups == 1 && job->s.n_taps * job->c_in > 0; }

int NAME(sparse_gather_pays)(const dense_job *job)
{
    const dtd_step *s = &job->s;
    const int64_t n_pixels = job->rows * s->out.shape[AXIS_W], inputs = s->n_taps * job->c_in;
    const int64_t blocks = ceil_div(job->blocks, ceil_div(job->blocks, blocks_at_most(job)));
    const int64_t limit = MOST_NONZERO[job->map == DUAL_MAP][blocks * DTD_BLOCK / VL];
    const real *x = reals(&s->x, job->bases) + table(&s->taps, job->bases)[s->n_taps / 2];
    int64_t samples = min64(SAMPLE, n_pixels), found = 0;
    for (int64_t i = 0; i < samples; i++) {
        const real *pixel = x + place_of(s, n_pixels * (2 * i + 1) / (2 * samples)).x;
        for (int64_t c = 0; c < job->c_in; c += CHUNK)
            found += __builtin_popcountll(nonzero(pixel + c, min64(CHUNK, job->c_in - c)));
    }
    return 100 * found * (inputs + OVERHEAD) <= limit * inputs * samples * job->c_in;
}

void NAME(sparse_gather)(dense_job *job, int n_threads)
{
    const dtd_step *s = &job->s;
    const int64_t n_pixels = job->rows * s->out.shape[AXIS_W];
    job->units = ceil_div(job->blocks, blocks_at_most(job));
    int64_t strips = max64(ceil_div(n_pixels, STRIP), ceil_div((int64_t)n_threads * ITEMS_PER_THREAD, job->units));
    job->strip = ceil_div(n_pixels, min64(strips, n_pixels));
    dtd_parallel(n_threads, job->units * ceil_div(n_pixels, job->strip), 1, run_sparse_gather, job);
}
