/* softmax.c: softmax, its logarithm, and relevance through it. */
#include "one_axis.h"

#include <tgmath.h>

#ifdef DTD_DOUBLE
/* numbers below LEAST have no exponential but 0; TERMS of the series leave out less than 2^-54 for |r| < ln 2 / 2;
 * ROUNDER + t rounds t to an integer, which is then in its lowest bits */
enum { MANTISSA = 52, BIAS = 1023, TERMS = 13 };
static const real LEAST = -745.14, ROUNDER = 0x1.8p52, LN_2_HIGH = 0.6931471804855391, LN_2_LOW = 7.440617110012397e-11;
#else
enum { MANTISSA = 23, BIAS = 127, TERMS = 7 };
static const real LEAST = -103.98f, ROUNDER = 0x1.8p23f, LN_2_HIGH = 0.693359375f, LN_2_LOW = -2.1219444e-4f;
#endif

static const real INVERSE_LN_2 = 1.4426950408889634;

/* 1 / k! */
static const double INVERSE_FACTORIAL[] = {
    1,         1,          1. / 2,      1. / 6,       1. / 24,       1. / 120,       1. / 720,
    1. / 5040, 1. / 40320, 1. / 362880, 1. / 3628800, 1. / 39916800, 1. / 479001600, 1. / 6227020800};

/* exp(x) for x <= 0 and NaN: 2^k exp(r) with the integer k nearest to x / ln 2; the power in two factors, so that
 * subnormal results are rounded but once */
ALWAYS_INLINE vec vec_exp(vec x)
{
    const mask low = (mask)(x < LEAST);
    x = (vec)((mask)x & ~low);
    const vec rounded = x * INVERSE_LN_2 + ROUNDER, k = rounded - ROUNDER;
    const vec r = (x - k * LN_2_HIGH) - k * LN_2_LOW;
    vec sum = splat((real)INVERSE_FACTORIAL[TERMS]);
#pragma GCC unroll 16
    for (int i = TERMS - 1; i >= 2; i--)
        sum = sum * r + (real)INVERSE_FACTORIAL[i];
    sum = (sum * r * r + r) + 1;
    const mask power = (mask)rounded - (mask)splat(ROUNDER), half = power >> 1;
    sum = sum * (vec)((half + BIAS) << MANTISSA) * (vec)((power - half + BIAS) << MANTISSA);
    return (vec)((mask)sum & ~low);
}

/* ---------------------------------------------------------------------------------------------------------- softmax */

/* a where chosen, else b */
ALWAYS_INLINE vec choose(mask chosen, vec a, vec b) { return (vec)(((mask)a & chosen) | ((mask)b & ~chosen)); }

ALWAYS_INLINE mask first_lanes(int64_t n)
{
    mask lane;
    for (int l = 0; l < VL; l++)
        lane[l] = l;
    return (mask)(lane < (bits)n);
}

/* The vector at p, of whose lanes n are in the row, if it is the last one. */
ALWAYS_INLINE vec load_row(const real *p, int64_t n) { return n < VL ? load_some(p, n) : load(p); }

/* coefficient·x of a piece, -infinity for what is left out and for the rest of the last vector; the largest, or that of
 * the pieces before */
static vec scale_piece(const real *x, const real *selector, real coefficient, real *row, int64_t n, vec largest)
{
    const vec least = splat(-INFINITY);
    for (int64_t i = 0; i < n; i += VL) {
        vec v = coefficient * load_row(x + i, n - i);
        if (n - i < VL)
            v = choose(first_lanes(n - i), v, least);
        if (selector)
            v = choose((mask)(load_row(selector + i, n - i) != 0), v, least);
        store(row + i, v);
        largest = choose((mask)(v > largest), v, largest);
    }
    return largest;
}

/* row[i] = exp(row[i] - largest), added to the sum of the pieces before */
static vec exponentials(real *row, int64_t n, real largest, vec sum)
{
    for (int64_t i = 0; i < n; i += VL) {
        const vec e = vec_exp(load(row + i) - largest);
        store(row + i, e);
        sum += e;
    }
    return sum;
}

/* row[i] = e[i]·inverse, 0 where it is left out */
static void quotients(const real *e, const real *selector, real inverse, real *row, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL) {
        vec v = load_row(e + i, n - i) * inverse;
        if (selector)
            v = (vec)((mask)v & (mask)(load_row(selector + i, n - i) != 0));
        store(row + i, v);
    }
}

/* The same in one pass, from x: out[i] = exp(x[i] - largest)·inverse, 0 where it is left out; `step` is 0 where one
 * selector stands for all. */
static void known_quotients(const real *x, const real *selector, int64_t step, real largest, real inverse, real *out,
                            int64_t n)
{
    for (int64_t i = 0; i < n; i += VL) {
        const int64_t lanes = min64(VL, n - i);
        vec v = vec_exp(load_row(x + i, lanes) - largest) * inverse;
        if (selector)
            v = (vec)((mask)v & (mask)((step ? load_row(selector + i, lanes) : splat(*selector)) != 0));
        if (lanes == VL)
            store(out + i, v);
        else
            memcpy(out + i, &v, (size_t)lanes * sizeof *out);
    }
}

static real largest_lane(vec v)
{
    real lane[VL];
    store(lane, v);
    for (int half = VL / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            lane[l] = lane[l] > lane[l + half] ? lane[l] : lane[l + half];
    return lane[0];
}

/* out[i] = exp(x[i] - max x) / sum_j exp(x[j] - max x), x times the coefficient, over those whose selector is not 0;
 * else 0.  factor gets (max x, 1 / sum); with m = (max x, 1 / sum), out may be some of the elements of a line */
static void run_softmax(void *context, int64_t first, int64_t last)
{
    const line_job *job = context;
    const dtd_step *s = job->s;
    const int64_t n = s->out.shape[job->axis];
    const int pieces = n > DTD_ROW; /* else the exponentials stay in `row` until they are divided */
    int64_t p[6];
    real x_row[DTD_ROW], selector_row[DTD_ROW];
    _Alignas(64) real row[DTD_ROW];
    unravel(first, s->out.shape, job->axis, p);
    for (int64_t item = first; item < last; item++, next_line(s->out.shape, job->axis, p)) {
        const dtd_line x = line_of(job, &s->x, p), kept = line_of(job, &s->other, p), out = line_of(job, &s->out, p),
                       known = line_of(job, &s->m, p), found = line_of(job, &s->factor, p);
        vec most = splat(-INFINITY), sum = {0};
        if (known.at && x.step == 1 && out.step == 1 && kept.step <= 1 && s->coefficient == 1) {
            known_quotients(x.at, kept.at, kept.step, known.at[0], known.at[known.step], out.at, n);
            continue;
        }
        if (known.at) {
            EACH_PIECE(at, length, n)
            {
                const real *selector = piece_of(kept, at, length, selector_row);
                scale_piece(piece_of(x, at, length, x_row), selector, s->coefficient, row, length, most);
                exponentials(row, length, known.at[0], sum);
                quotients(row, selector, known.at[known.step], row, length);
                put_piece(out, at, row, length, 0);
            }
            continue;
        }
        EACH_PIECE(at, length, n)
        most = scale_piece(piece_of(x, at, length, x_row), piece_of(kept, at, length, selector_row), s->coefficient,
                           row, length, most);
        const real largest = largest_lane(most);
        EACH_PIECE(at, length, n)
        {
            if (pieces)
                scale_piece(piece_of(x, at, length, x_row), piece_of(kept, at, length, selector_row), s->coefficient,
                            row, length, most);
            sum = exponentials(row, length, largest, sum);
            if (pieces)
                put_piece(out, at, row, length, 0);
        }
        /* a row that is left out wholly: its exponentials are NaN, but none is read */
        const real inverse = 1 / add_lanes(sum);
        if (found.at) {
            found.at[0] = largest;
            found.at[found.step] = inverse;
        }
        EACH_PIECE(at, length, n)
        {
            quotients(pieces ? piece_of(out, at, length, x_row) : row, piece_of(kept, at, length, selector_row),
                      inverse, row, length);
            put_piece(out, at, row, length, 0);
        }
    }
}

void NAME(softmax)(const dtd_step *s, void *const *bases, int n_threads)
{
    each_line(s, bases, n_threads, s->out.shape, s->axis, run_softmax);
}

/* out[i] = x[i] - max x - log sum_j exp(x[j] - max x) */
static void run_log_softmax(void *context, int64_t first, int64_t last)
{
    const line_job *job = context;
    const dtd_step *s = job->s;
    int64_t n = s->out.shape[job->axis], from = s->x.stride[job->axis], to = s->out.stride[job->axis], p[6];
    for (int64_t item = first; item < last; item++) {
        unravel(item, s->out.shape, job->axis, p);
        const real *x = reals(&s->x, job->bases) + offset_of(&s->x, p);
        real *out = reals(&s->out, job->bases) + offset_of(&s->out, p), largest = x[0], sum = 0;
        for (int64_t i = 1; i < n; i++)
            largest = x[i * from] > largest ? x[i * from] : largest;
        for (int64_t i = 0; i < n; i++)
            sum += exp(x[i * from] - largest);
        sum = log(sum);
        for (int64_t i = 0; i < n; i++)
            out[i * to] = x[i * from] - largest - sum;
    }
}

void NAME(log_softmax)(const dtd_step *s, void *const *bases, int n_threads)
{
    each_line(s, bases, n_threads, s->out.shape, s->axis, run_log_softmax);
}

/* -------------------------------------------------------------------------------------------------------- relevance */

static double *sum_at(const line_job *job, const dtd_view *v, const int64_t *p)
{
    return present(v) ? (double *)job->bases[v->base] + v->offset + offset_of(v, p) : NULL;
}

/* out[i] (+)= coefficient·m[i]·(x[i] - sum_j m[j]·x[j]) in double, rounded once.  factor gets the sum, a double; with
 * it as scale, out may be some of the elements of a line */
static void run_softmax_back(void *context, int64_t first, int64_t last)
{
    const line_job *job = context;
    const dtd_step *s = job->s;
    const int64_t n = s->out.shape[job->axis];
    int64_t p[6];
    real x_row[DTD_ROW], m_row[DTD_ROW], result[DTD_ROW];
    double terms[DTD_ROW];
    unravel(first, s->out.shape, job->axis, p);
    for (int64_t item = first; item < last; item++, next_line(s->out.shape, job->axis, p)) {
        const dtd_line x = line_of(job, &s->x, p), m = line_of(job, &s->m, p), out = line_of(job, &s->out, p);
        const double *known = sum_at(job, &s->scale, p);
        double sum = known ? *known : 0, *found = sum_at(job, &s->factor, p);
        if (!known)
            EACH_PIECE(at, length, n)
            {
                const real *c = piece_of(x, at, length, x_row), *y = piece_of(m, at, length, m_row);
                for (int64_t i = 0; i < length; i++)
                    terms[i] = (double)y[i] * c[i];
                sum += sum_of(terms, length);
            }
        if (found)
            *found = sum;
        EACH_PIECE(at, length, n)
        {
            const real *c = piece_of(x, at, length, x_row), *y = piece_of(m, at, length, m_row);
            for (int64_t i = 0; i < length; i++)
                result[i] = (real)(y[i] * (c[i] - sum) * s->coefficient);
            put_piece(out, at, result, length, s->accumulate);
        }
    }
}

void NAME(softmax_back)(const dtd_step *s, void *const *bases, int n_threads)
{
    each_line(s, bases, n_threads, s->out.shape, s->axis, run_softmax_back);
}
