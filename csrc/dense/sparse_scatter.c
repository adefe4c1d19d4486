/* sparse_scatter.c: dense tap layers with few outputs whose x is mostly 0, such as relevance from a max-pool.
 *
 *     sum[u - tap_k, j] += x[u,i] wm(w[k,i,j])    for all u, i with x[u,i] != 0
 *
 * Each non-zero input is added to the outputs it contributes to.  Pixels are numbered as they lie in x, frames
 * included. A run is a row of the kernel: taps whose numbers fall by one from each to the next, so that its outputs are
 * contiguous, and its weights too.  Pixels u are taken from last to first, so that every sum is the chain over (k, i)
 * of direct.c, without terms that would have added exactly 0.
 */
#include "dense.h"
#include "base/simd.h"

enum {
    MOST_OUTPUTS = 8,
    MOST_INPUTS = 64,
    MOST_RUNS = 32,
    SUMS = (1 << 15) / sizeof(real),    /* sums of an image, on the stack of a thread */
    WEIGHTS = (1 << 15) / sizeof(real), /* packed weights, on the stack of a thread */
    MOST_VECTORS = 4,                   /* of a run */
    SAMPLE = 64,                        /* pixels */
};

typedef struct {
    const dense_job *dense;
    dtd_step s;                   /* with its own pixels */
    int64_t pixel, pitch, plane;  /* elements of a pixel; pixels from row to row, from plane to plane */
    int64_t n_runs, run, vectors; /* taps and vectors of a run */
    int64_t above, n_sums;        /* pixels before the first output, and all pixels, that x may reach */
    int64_t first[MOST_RUNS];     /* from u to the run's first output */
} sparse_scatter_job;

/* wm(w) as [input][run][tap of the run][output], runs padded with zeros to whole vectors */
static void pack_weights(const sparse_scatter_job *job, real *to)
{
    const dtd_step *s = &job->s;
    const int64_t c_in = job->dense->c_in, c_out = job->dense->c_out, row = job->vectors * VL;
    const real *w = vector(&s->weight, job->dense->bases);
    real mapped[DTD_BLOCK];
    for (int64_t k = 0; k < s->n_taps; k++)
        for (int64_t i = 0; i < c_in; i++, w += DTD_BLOCK) {
            real *at = to + (i * job->n_runs + k / job->run) * row + k % job->run * c_out;
            for (int v = 0; v < DTD_BLOCK; v += VL)
                store(mapped + v, map_any(s->weight_map, load(w + v), s->gamma));
            memcpy(at, mapped, (size_t)c_out * sizeof *at);
        }
    for (int64_t i = 0; i < c_in * job->n_runs; i++)
        for (int64_t e = job->run * c_out; e < row; e++)
            to[i * row + e] = 0;
}

/* The inputs of a pixel that are not 0 (NaN is not). */
ALWAYS_INLINE int find_inputs(const real *x, int64_t c_in, int *inputs)
{
    int n = 0;
    for (int64_t i = 0; i < c_in; i += VL) {
#if defined(__AVX512F__)
        unsigned left = MM_MASK(_mm512_cmp)((MM_TYPE(__m512))load_some(x + i, min64(VL, c_in - i)),
                                            MM(_mm512_setzero)(), _CMP_NEQ_UQ);
        for (; left; left &= left - 1)
            inputs[n++] = (int)i + __builtin_ctz(left);
#else
        for (int64_t e = i; e < min64(i + VL, c_in); e++) {
            inputs[n] = (int)e;
            n += x[e] != 0;
        }
#endif
    }
    return n;
}

/* All that one pixel adds; `vectors` is a constant wherever this is inlined. */
ALWAYS_INLINE void scatter_pixel(const sparse_scatter_job *job, const real *x, const int *inputs, int n,
                                 const real *weights, real *sums, const int vectors)
{
    const int64_t c_out = job->dense->c_out, row = vectors * VL, next = job->n_runs * row;
    const int64_t rest = job->run * c_out - (vectors - 1) * VL;
    mask lanes;
    for (int l = 0; l < VL; l++)
        lanes[l] = l < rest ? -1 : 0;
    for (int64_t r = 0; r < job->n_runs; r++) {
        real *to = sums + job->first[r] * c_out;
        const real *w = weights + r * row;
        vec a[MOST_VECTORS], last;
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            a[v] = load(to + v * VL);
        last = a[vectors - 1];
        for (int i = 0; i < n; i++) {
            const vec xv = splat(x[inputs[i]]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                a[v] += xv * load(w + inputs[i] * next + v * VL);
        }
        /* lanes beyond the run are other outputs' */
        a[vectors - 1] = (vec)(((mask)a[vectors - 1] & lanes) | ((mask)last & ~lanes));
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            store(to + v * VL, a[v]);
    }
}

/* All pixels of one image; `vectors` is a constant wherever this is inlined. */
ALWAYS_INLINE void scatter_image(const sparse_scatter_job *job, const real *x, const real *weights, real *sums,
                                 const int vectors)
{
    const int64_t *shape = job->s.x.shape, c_in = job->dense->c_in, c_out = job->dense->c_out;
    int inputs[MOST_INPUTS];
    for (int64_t d = shape[AXIS_D] - 1; d >= 0; d--)
        for (int64_t h = shape[AXIS_H] - 1; h >= 0; h--)
            for (int64_t w = shape[AXIS_W] - 1; w >= 0; w--) {
                const int64_t u = d * job->plane + h * job->pitch + w;
                const int n = find_inputs(x + u * job->pixel, c_in, inputs);
                if (n)
                    scatter_pixel(job, x + u * job->pixel, inputs, n, weights, sums + u * c_out, vectors);
            }
}

/* The sums of an image through the epilogue. */
static void finish_image(const sparse_scatter_job *job, int64_t n, const real *sums)
{
    const dtd_step *s = &job->s;
    const int64_t *shape = s->out.shape, c_out = job->dense->c_out;
    const int plain = s->multiplier == DTD_M_NONE && !s->accumulate && !present(&s->scale);
    const int rows = s->out.stride[AXIS_W] == c_out && (c_out == 1 || s->out.stride[AXIS_C] == 1);
    real tile[DTD_TILE_PIXELS * DTD_BLOCK];
    for (int64_t d = 0; d < shape[AXIS_D]; d++)
        for (int64_t h = 0; h < shape[AXIS_H]; h++) {
            const real *from = sums + (job->above + d * job->plane + h * job->pitch) * c_out;
            if (plain && rows) {
                const int64_t index[6] = {n, 0, d, h, 0, 0};
                memcpy(reals(&s->out, job->dense->bases) + offset_of(&s->out, index), from,
                       (size_t)(shape[AXIS_W] * c_out) * sizeof *from);
                continue;
            }
            for (int64_t w = 0; w < shape[AXIS_W]; w += DTD_TILE_PIXELS) {
                dtd_site site = {.n_pixels = (int)min64(DTD_TILE_PIXELS, shape[AXIS_W] - w), .n_channels = (int)c_out};
                NAME(locate)(&site, s, job->dense->bases, n, 0, d, h, w);
                for (int p = 0; p < site.n_pixels; p++)
                    for (int64_t j = 0; j < c_out; j++)
                        tile[p * DTD_BLOCK + j] = from[(w + p) * c_out + j];
                NAME(finish_taps)(s, &site, tile);
            }
        }
}

static void run_sparse_scatter(void *context, int64_t first, int64_t last)
{
    const sparse_scatter_job *job = context;
    real sums[SUMS], weights[WEIGHTS];
    pack_weights(job, weights);
    for (int64_t n = first; n < last; n++) {
        const real *x = reals(&job->s.x, job->dense->bases) + n * job->s.x.stride[AXIS_N];
        real *start = sums + job->above * job->dense->c_out;
        memset(sums, 0, (size_t)(job->n_sums * job->dense->c_out + job->vectors * VL) * sizeof *sums);
        switch (job->vectors) {
        case 1: scatter_image(job, x, weights, start, 1); break;
        case 2: scatter_image(job, x, weights, start, 2); break;
        case 3: scatter_image(job, x, weights, start, 3); break;
        case 4: scatter_image(job, x, weights, start, 4); break;
        }
        finish_image(job, n, sums);
    }
}

static int multiple(int64_t a, int64_t of) { return a % of == 0; }

/* Whether taps and pixels are such that this file can compute the step, and how. */
static int find_runs(sparse_scatter_job *job)
{
    const dtd_step *s = &job->s;
    const int64_t *taps = table(&s->taps, job->dense->bases), *out = s->out.shape, *in = s->x.shape,
                  c_out = job->dense->c_out;
    job->pixel = s->x.stride[AXIS_W];
    if (s->groups != 1 || c_out > MOST_OUTPUTS || job->dense->c_in > MOST_INPUTS || s->n_taps < 2 ||
        job->pixel < job->dense->c_in)
        return 0;
    if (s->x_step[0] != 1 || s->x_step[1] != 1 || s->x_step[2] != 1 || !multiple(s->x.stride[AXIS_H], job->pixel) ||
        !multiple(s->x.stride[AXIS_D], job->pixel) || s->x.stride[AXIS_H] < 0 || s->x.stride[AXIS_D] < 0)
        return 0;
    job->pitch = s->x.stride[AXIS_H] / job->pixel;
    job->plane = s->x.stride[AXIS_D] / job->pixel;
    job->run = 1;
    while (job->run < s->n_taps && taps[job->run] == taps[job->run - 1] - job->pixel)
        job->run++;
    job->n_runs = s->n_taps / job->run;
    job->vectors = ceil_div(job->run * c_out, VL);
    if (!multiple(s->n_taps, job->run) || job->n_runs > MOST_RUNS || job->vectors > MOST_VECTORS)
        return 0;
    if (job->run * c_out < VL) /* one pixel's sums would be loaded before the last one's have left for the cache */
        return 0;
    for (int64_t k = 0; k < s->n_taps; k++) {
        if (!multiple(taps[k], job->pixel) ||
            (k && (k % job->run ? taps[k] != taps[k - 1] - job->pixel : taps[k] >= taps[k - 1])))
            return 0;
        if (k % job->run == 0)
            job->first[k / job->run] = -taps[k] / job->pixel;
    }
    const int64_t least = taps[s->n_taps - 1] / job->pixel, most = taps[0] / job->pixel;
    const int64_t last_x = (in[AXIS_D] - 1) * job->plane + (in[AXIS_H] - 1) * job->pitch + in[AXIS_W] - 1;
    const int64_t last_out = (out[AXIS_D] - 1) * job->plane + (out[AXIS_H] - 1) * job->pitch + out[AXIS_W] - 1;
    job->above = max64(0, most);
    job->n_sums = job->above + max64(last_x - least, last_out) + 1;
    return job->n_sums * c_out + job->vectors * VL <= SUMS &&
           job->dense->c_in * job->n_runs * job->vectors * VL <= WEIGHTS;
}

int NAME(sparse_scatter_suits)(const dense_job *dense)
{
    sparse_scatter_job job = {.dense = dense, .s = *dense->step};
    return !dense->neuron && find_runs(&job);
}

/* Pixels are a sample, evenly spaced; costs are multiply-adds of vectors, or loads and stores that take as long. */
int NAME(sparse_scatter_pays)(const dense_job *dense)
{
    sparse_scatter_job job = {.dense = dense, .s = *dense->step};
    const dtd_step *s = &job.s;
    const int64_t *shape = s->x.shape, n_pixels = shape[AXIS_N] * shape[AXIS_D] * shape[AXIS_H] * shape[AXIS_W];
    const int64_t samples = min64(SAMPLE, n_pixels), c_in = dense->c_in;
    int inputs[MOST_INPUTS];
    int64_t found = 0;
    find_runs(&job);
    for (int64_t i = 0; i < samples; i++) {
        int64_t index[6];
        unravel(n_pixels * (2 * i + 1) / (2 * samples), shape, AXIS_C, index);
        found += find_inputs(reals(&s->x, dense->bases) + offset_of(&s->x, index), c_in, inputs);
    }
    const int64_t here = samples * (6 + job.n_runs * job.vectors * 2) + found * job.n_runs * job.vectors;
    const int64_t channels_first = samples * c_in * (s->n_taps * max64(dense->c_out, 2) / VL + 8);
    return here < channels_first;
}

void NAME(sparse_scatter)(dense_job *dense, int n_threads)
{
    sparse_scatter_job job = {.dense = dense, .s = *dense->step};
    const int64_t *shape = job.s.x.shape;
    find_runs(&job);
    dtd_parallel(n_threads, shape[AXIS_N], ceil_div(1 << 13, shape[AXIS_D] * shape[AXIS_H] * shape[AXIS_W]),
                 run_sparse_scatter, &job);
}
