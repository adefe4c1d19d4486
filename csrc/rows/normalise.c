/* normalise.c: steps that divide by a sum over the channels: LRN, and norms (layer and RMS) with their relevance. */
#include "one_axis.h"

#include <float.h>
#include <tgmath.h>

/* -------------------------------------------------------------------------------------------------------------- LRN */

/* out[c] = x[c] / (k + alpha · sum_j x[j]²)^beta over the channels j = c - (size-1)/2 .. c + size/2 */
static void run_lrn(void *context, int64_t first, int64_t last)
{
    const line_job *job = context;
    const dtd_step *s = job->s;
    int64_t channels = s->out.shape[AXIS_C], before = (s->lrn_size - 1) / 2, after = s->lrn_size / 2;
    int64_t x_channel = s->x.stride[AXIS_C], out_channel = s->out.stride[AXIS_C], p[6];
    const real k = s->lrn_k, alpha = s->lrn_alpha, beta = s->lrn_beta;
    for (int64_t item = first; item < last; item++) {
        unravel(item, s->out.shape, AXIS_C, p);
        const real *x = reals(&s->x, job->bases) + offset_of(&s->x, p);
        real *out = reals(&s->out, job->bases) + offset_of(&s->out, p);
        for (int64_t c = 0; c < channels; c++) {
            real squares = 0;
            for (int64_t j = max64(0, c - before); j <= min64(channels - 1, c + after); j++)
                squares += x[j * x_channel] * x[j * x_channel];
            out[c * out_channel] = x[c * x_channel] / pow(k + alpha * squares, beta);
        }
    }
}

void NAME(lrn)(const dtd_step *s, void *const *bases, int n_threads)
{
    each_line(s, bases, n_threads, s->out.shape, AXIS_C, run_lrn);
}

/* ---------------------------------------------------------------------------------------------------------- lengths */

#ifdef __clang__
#define HALVES(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define HALVES(a, b, ...) __builtin_shuffle(a, b, (longs){__VA_ARGS__})
#endif

/* a0+ah, b0+bh, a1+a(h+1) .., where h is half the lanes */
ALWAYS_INLINE wide folded(wide a, wide b)
{
#if defined(__AVX512F__)
    return HALVES(a, b, 0, 8, 1, 9, 2, 10, 3, 11) + HALVES(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#elif defined(__AVX2__)
    return HALVES(a, b, 0, 4, 1, 5) + HALVES(a, b, 2, 6, 3, 7);
#else
    return HALVES(a, b, 0, 2) + HALVES(a, b, 1, 3);
#endif
}

/* x[l]² + x[l + lanes]² + .. of n elements, a multiple of the lanes */
ALWAYS_INLINE wide squares_in_lanes(const real *x, int64_t n)
{
    wide sum = {0};
    for (int64_t i = 0; i < n; i += WIDE_LANES) {
        const wide v = widened(at(x, i));
        sum += v * v;
    }
    return sum;
}

/* Lengths of as many blocks as a vector has lanes, side by side, their width a multiple of the lanes. */
ALWAYS_INLINE void lengths_in_lanes(const real *x, int64_t width, double *length)
{
    wide sum[WIDE_LANES];
#pragma GCC unroll 8
    for (int g = 0; g < WIDE_LANES; g++)
        sum[g] = squares_in_lanes(x + g * width, width);
#pragma GCC unroll 3
    for (int half = WIDE_LANES / 2; half > 0; half /= 2)
#pragma GCC unroll 4
        for (int g = 0; g < half; g++)
            sum[g] = folded(sum[g], sum[g + half]);
    for (int g = 0; g < WIDE_LANES; g++)
        length[g] = sqrt(sum[0][g]);
}

static double scaled_length(dtd_line x, int64_t n, double by)
{
    double squares = 0;
    for (int64_t i = 0; i < n; i++)
        squares += by * x.at[i * x.step] * (by * x.at[i * x.step]);
    return sqrt(squares) / by;
}

ALWAYS_INLINE double length_of(dtd_line x, int64_t n)
{
    if (x.step != 1 || n % WIDE_LANES)
        return scaled_length(x, n, 1);
    wide sum = squares_in_lanes(x.at, n);
    double even = 0, odd = 0;
    for (int l = 0; l < WIDE_LANES; l += 2)
        even += sum[l], odd += sum[l + 1];
    return sqrt(even + odd);
}

/* In double no square of a float under- or overflows; those of doubles are scaled where they do. */
ALWAYS_INLINE real in_range(double length, dtd_line x, int64_t n)
{
    if (sizeof(real) < sizeof(double) || (length > 0x1p-450 && length <= DBL_MAX))
        return (real)length;
    return (real)scaled_length(x, n, length > 1 ? 0x1p-600 : 0x1p600);
}

ALWAYS_INLINE dtd_line line_from(dtd_line x, int64_t first) { return (dtd_line){x.at + first * x.step, x.step}; }

/* out[g] = sqrt(sum_c x[c]²) over the channels c of block g */
static void run_length(void *context, int64_t first, int64_t last)
{
    const line_job *job = context;
    const dtd_step *s = job->s;
    const int64_t blocks = s->out.shape[AXIS_C], channels = s->x.shape[AXIS_C], width = ceil_div(channels, blocks);
    const int together = s->x.stride[AXIS_C] == 1 && width % WIDE_LANES == 0;
    int64_t p[6];
    unravel(first, s->out.shape, AXIS_C, p);
    for (int64_t item = first; item < last; item++, next_line(s->out.shape, AXIS_C, p)) {
        const dtd_line x = line_of(job, &s->x, p), out = line_of(job, &s->out, p);
        int64_t g = 0;
        for (; together && (g + WIDE_LANES) * width <= channels; g += WIDE_LANES) {
            double length[WIDE_LANES];
            lengths_in_lanes(x.at + g * width, width, length);
            for (int b = 0; b < WIDE_LANES; b++)
                out.at[(g + b) * out.step] = in_range(length[b], line_from(x, (g + b) * width), width);
        }
        for (; g < blocks; g++) {
            const dtd_line block = line_from(x, g * width);
            const int64_t n = min64(width, channels - g * width);
            out.at[g * out.step] = in_range(length_of(block, n), block, n);
        }
    }
}

void NAME(length)(const dtd_step *s, void *const *bases, int n_threads)
{
    each_line(s, bases, n_threads, s->out.shape, AXIS_C, run_length);
}

/* ------------------------------------------------------------------------------------------------------------- norms
 *
 *     y_j = (x_j - mean x)·rho·w_j + b_j = sum_i x_i m_ij + b_j,   m_ij = (delta_ij - kappa)·rho·w_j
 *
 * kappa is 1/channels if `centred`; else there is no mean and no m_ij but on the diagonal.  All is computed in double,
 * and each result is rounded once: where the diagonal is taken from a sum over all of a row of m, the sum cancels.  In
 * double alone this is not enough where numbers are doubles: there the sum is kept in two. */

/* The mean of a line. */
static double mean_of(dtd_line x, int64_t n)
{
    real row[DTD_ROW];
    double terms[DTD_ROW], sum = 0;
    EACH_PIECE(at, length, n)
    {
        const real *values = piece_of(x, at, length, row);
        for (int64_t i = 0; i < length; i++)
            terms[i] = values[i];
        sum += sum_of(terms, length);
    }
    return sum / n;
}

/* 1 / sqrt(mean (x - mean)² + epsilon) */
static double rho_of(dtd_line x, int64_t n, double mean, double epsilon)
{
    real row[DTD_ROW];
    double terms[DTD_ROW], sum = 0;
    EACH_PIECE(at, length, n)
    {
        const real *values = piece_of(x, at, length, row);
        for (int64_t i = 0; i < length; i++)
            terms[i] = (values[i] - mean) * (values[i] - mean);
        sum += sum_of(terms, length);
    }
    return 1 / sqrt(sum / n + epsilon);
}

/* out = (x - mean x)·rho·w + b, factor = rho = 1 / sqrt(mean (x - mean x)² + epsilon) */
static void run_norm(void *context, int64_t first, int64_t last)
{
    const line_job *job = context;
    const dtd_step *s = job->s;
    const int64_t n = s->out.shape[AXIS_C];
    int64_t p[6];
    real x_row[DTD_ROW], weight_row[DTD_ROW], bias_row[DTD_ROW], result[DTD_ROW];
    double y[DTD_ROW];
    unravel(first, s->out.shape, AXIS_C, p);
    for (int64_t item = first; item < last; item++, next_line(s->out.shape, AXIS_C, p)) {
        const dtd_line x = line_of(job, &s->x, p), w = line_of(job, &s->other, p), b = line_of(job, &s->shift, p),
                       out = line_of(job, &s->out, p), factor = line_of(job, &s->factor, p);
        const double mean = s->centred ? mean_of(x, n) : 0, rho = rho_of(x, n, mean, s->epsilon);
        if (factor.at)
            *factor.at = (real)rho;
        EACH_PIECE(at, length, n)
        {
            const real *values = piece_of(x, at, length, x_row), *weight = piece_of(w, at, length, weight_row),
                       *bias = piece_of(b, at, length, bias_row);
            for (int64_t i = 0; i < length; i++)
                y[i] = (values[i] - mean) * rho;
            for (int64_t i = 0; i < length && weight; i++)
                y[i] *= weight[i];
            for (int64_t i = 0; i < length && bias; i++)
                y[i] += bias[i];
            for (int64_t i = 0; i < length; i++)
                result[i] = (real)y[i];
            put_piece(out, at, result, length, 0);
        }
    }
}

void NAME(norm)(const dtd_step *s, void *const *bases, int n_threads)
{
    each_line(s, bases, n_threads, s->out.shape, AXIS_C, run_norm);
}

/* ----------------------------------------------------------------------------------------- products with its matrix */

typedef void (*entries_function)(double by, const real *weight, double gamma, double *entries, int64_t n);

/* Entries of columns j of m, on the diagonal or beside it: entries[j] = wm(by·w_j) */
#define ENTRIES(map)                                                                                                   \
    static void entries_##map(double by, const real *weight, double gamma, double *entries, int64_t n)                 \
    {                                                                                                                  \
        for (int64_t i = 0; i < n; i++)                                                                                \
            entries[i] = map_double(map, by * (weight ? weight[i] : 1.0), gamma);                                      \
    }

EACH_WEIGHT_MAP(ENTRIES)

#define ENTRY(map) [map] = entries_##map,
static const entries_function ENTRIES_OF[] = {EACH_WEIGHT_MAP(ENTRY)};

/* A sum, and what rounding took from it. */
typedef struct {
    double high, low;
} norm_sum;

/* high + low += term, where the sum of the two is exact */
ALWAYS_INLINE void add_exactly(double *high, double *low, double term)
{
    const double sum = *high + term, added = sum - *high;
    *low += (*high - (sum - added)) + (term - added);
    *high = sum;
}

ALWAYS_INLINE void add_terms(norm_sum *sum, const double *terms, int64_t n)
{
    if (sizeof(real) < sizeof(double)) {
        sum->high += sum_of(terms, n);
        return;
    }
    enum { LANES = 8 };
    double high[LANES] = {0}, low[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            add_exactly(&high[l], &low[l], terms[i + l]);
    for (int l = 0; i < n; i++, l++)
        add_exactly(&high[l], &low[l], terms[i]);
    for (int l = 0; l < LANES; l++) {
        add_exactly(&sum->high, &sum->low, high[l]);
        sum->low += low[l];
    }
}

/* The sum without one of its terms. */
ALWAYS_INLINE double without(const norm_sum *sum, double term) { return sum->high - term + sum->low; }

/* One line of the products with m or, to scatter, with its transpose: each term of the sum over all of a row has what
 * is beside the diagonal as a factor then, and else the sum has it. */
static void multiply_line(const line_job *job, const int64_t *p)
{
    const dtd_step *s = job->s;
    const int64_t n = s->out.shape[AXIS_C];
    const int scatter = s->op == DTD_NORM_SCATTER;
    const dtd_line x = line_of(job, &s->x, p), w = line_of(job, &s->other, p), kept = line_of(job, &s->m, p),
                   out = line_of(job, &s->out, p);
    const double kappa = s->centred ? 1.0 / n : 0, rho = *line_of(job, &s->scale, p).at;
    const entries_function entries = ENTRIES_OF[s->weight_map];
    real x_row[DTD_ROW], weight_row[DTD_ROW], kept_row[DTD_ROW], result[DTD_ROW];
    double terms[DTD_ROW], own[DTD_ROW], beside[DTD_ROW];
    norm_sum sum = {0, 0};
    if (s->centred)
        EACH_PIECE(at, length, n)
        {
            const real *values = piece_of(x, at, length, x_row), *weight = piece_of(w, at, length, weight_row);
            if (scatter)
                entries(-kappa * rho, weight, s->gamma, beside, length);
            for (int64_t i = 0; i < length; i++)
                terms[i] = scatter ? values[i] * beside[i] : values[i];
            add_terms(&sum, terms, length);
        }
    EACH_PIECE(at, length, n)
    {
        const real *values = piece_of(x, at, length, x_row), *weight = piece_of(w, at, length, weight_row);
        entries((1 - kappa) * rho, weight, s->gamma, own, length);
        if (s->centred)
            entries(-kappa * rho, weight, s->gamma, beside, length);
        if (!s->centred)
            for (int64_t i = 0; i < length; i++)
                result[i] = (real)(values[i] * own[i]);
        else if (scatter)
            for (int64_t i = 0; i < length; i++)
                result[i] = (real)(values[i] * own[i] + without(&sum, values[i] * beside[i]));
        else
            for (int64_t i = 0; i < length; i++)
                result[i] = (real)(values[i] * own[i] + without(&sum, values[i]) * beside[i]);
        if (scatter && s->multiplier != DTD_M_NONE)
            NAME(row_multiplier)(s->multiplier, piece_of(kept, at, length, kept_row), result, length);
        put_piece(out, at, result, length, s->accumulate);
    }
}

static void run_products(void *context, int64_t first, int64_t last)
{
    const line_job *job = context;
    int64_t p[6];
    unravel(first, job->s->out.shape, AXIS_C, p);
    for (int64_t item = first; item < last; item++, next_line(job->s->out.shape, AXIS_C, p))
        multiply_line(job, p);
}

void NAME(norm_taps)(const dtd_step *s, void *const *bases, int n_threads)
{
    each_line(s, bases, n_threads, s->out.shape, AXIS_C, run_products);
}

/* ---------------------------------------------------------------------------------------------- the true derivative */

/* out (+)= rho·(g - mean g - x̂·mean(g·x̂)), where g = w·x and x̂ = (m - mean m)·rho; no means of m and g without
 * `centred` */
static void run_derivative(void *context, int64_t first, int64_t last)
{
    const line_job *job = context;
    const dtd_step *s = job->s;
    const int64_t n = s->out.shape[AXIS_C];
    int64_t p[6];
    real x_row[DTD_ROW], weight_row[DTD_ROW], m_row[DTD_ROW], result[DTD_ROW];
    double plain[DTD_ROW], along[DTD_ROW];
    unravel(first, s->out.shape, AXIS_C, p);
    for (int64_t item = first; item < last; item++, next_line(s->out.shape, AXIS_C, p)) {
        const dtd_line x = line_of(job, &s->x, p), w = line_of(job, &s->other, p), m = line_of(job, &s->m, p),
                       out = line_of(job, &s->out, p);
        const double mean = s->centred ? mean_of(m, n) : 0, rho = rho_of(m, n, mean, s->epsilon);
        double mean_g = 0, mean_along = 0;
        EACH_PIECE(at, length, n)
        {
            const real *c = piece_of(x, at, length, x_row), *weight = piece_of(w, at, length, weight_row),
                       *y = piece_of(m, at, length, m_row);
            for (int64_t i = 0; i < length; i++) {
                plain[i] = c[i] * (weight ? weight[i] : 1.0);
                along[i] = plain[i] * ((y[i] - mean) * rho);
            }
            mean_g += sum_of(plain, length);
            mean_along += sum_of(along, length);
        }
        mean_g = s->centred ? mean_g / n : 0;
        mean_along /= n;
        EACH_PIECE(at, length, n)
        {
            const real *c = piece_of(x, at, length, x_row), *weight = piece_of(w, at, length, weight_row),
                       *y = piece_of(m, at, length, m_row);
            for (int64_t i = 0; i < length; i++)
                result[i] =
                    (real)(rho * (c[i] * (weight ? weight[i] : 1.0) - mean_g - (y[i] - mean) * rho * mean_along));
            put_piece(out, at, result, length, s->accumulate);
        }
    }
}

void NAME(norm_scatter)(const dtd_step *s, void *const *bases, int n_threads)
{
    each_line(s, bases, n_threads, s->out.shape, AXIS_C, s->derivative ? run_derivative : run_products);
}
