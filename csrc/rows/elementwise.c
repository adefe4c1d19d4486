/* elementwise.c: steps whose result elements each depend on the same element of the operands. */
#include "strided.h"

#include "base/simd.h"

#include <tgmath.h>
#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* ------------------------------------------------------------------------------------------------------- input maps */

static void row_map(const dtd_step *s, const real *const *operand, real *result, int64_t n)
{
    const real *x = operand[0], *m = operand[1];
#define ROW(formula)                                                                                                   \
    for (int64_t i = 0; i < n; i++)                                                                                    \
        result[i] = formula;                                                                                           \
    break
    switch ((dtd_input_map)s->input_map) {
    case DTD_X_POSITIVE: ROW(positive(x[i]));
    case DTD_X_NEGATIVE: ROW(negative(x[i]));
    case DTD_X_ABOVE_LOW: ROW(m[i] == -INFINITY ? positive(x[i]) : x[i] - (m[i] == INFINITY ? x[i] : m[i]));
    case DTD_X_BELOW_HIGH: ROW(m[i] == INFINITY ? negative(x[i]) : x[i] - (m[i] == -INFINITY ? x[i] : m[i]));
    case DTD_X_ONE: ROW(1);
    case DTD_X_ABS: ROW(fabs(x[i]));
    case DTD_N_INPUT_MAPS: break;
    }
#undef ROW
}

void NAME(map)(const dtd_step *s, void *const *bases, int n_threads)
{
    const dtd_view *operands[] = {&s->x, &s->m};
    NAME(strided)(s, bases, n_threads, row_map, operands, COUNT(operands), 0);
}

/* wm(x), but that "1" is 1[x != 0] */
static void row_map_weight(const dtd_step *s, const real *const *operand, real *result, int64_t n)
{
    const real *x = operand[0], gamma = s->gamma;
    if (s->weight_map == DTD_W_ONE)
        for (int64_t i = 0; i < n; i++)
            result[i] = x[i] != 0;
    else
        for (int64_t i = 0; i < n; i += VL) {
            const int64_t lanes = min64(VL, n - i);
            store_some(result + i, map_any(s->weight_map, load_some(x + i, lanes), gamma), lanes);
        }
}

void NAME(map_weight)(const dtd_step *s, void *const *bases, int n_threads)
{
    const dtd_view *operands[] = {&s->x};
    NAME(strided)(s, bases, n_threads, row_map_weight, operands, COUNT(operands), 0);
}

/* ---------------------------------------------------------------------------------------------- products, quotients */

static void row_multiply(const dtd_step *s, const real *const *operand, real *result, int64_t n)
{
    memmove(result, operand[0], (size_t)n * sizeof *result);
    NAME(row_multiplier)(s->multiplier, operand[1], result, n);
    const real coefficient = s->coefficient;
    for (int64_t i = 0; i < n && coefficient != 1; i++)
        result[i] *= coefficient;
}

void NAME(multiply)(const dtd_step *s, void *const *bases, int n_threads)
{
    const dtd_view *operands[] = {&s->x, &s->m};
    NAME(strided)(s, bases, n_threads, row_multiply, operands, COUNT(operands), 1 << 1);
}

static void row_divide(const dtd_step *s, const real *const *operand, real *result, int64_t n)
{
    const real *x = operand[0], *m = operand[1];
    for (int64_t i = 0; i < n; i++)
        result[i] = quotient(x[i], m[i]);
    if (s->select == DTD_POSITIVE)
        for (int64_t i = 0; i < n; i++)
            result[i] = m[i] <= 0 ? 0 : result[i];
    if (s->select == DTD_NEGATIVE)
        for (int64_t i = 0; i < n; i++)
            result[i] = m[i] >= 0 ? 0 : result[i];
}

void NAME(divide)(const dtd_step *s, void *const *bases, int n_threads)
{
    const dtd_view *operands[] = {&s->x, &s->m};
    NAME(strided)(s, bases, n_threads, row_divide, operands, COUNT(operands), 1 << 1);
}

/* --------------------------------------------------------------------------------------------- activations, factors */

/* x where x > 0, else slope x; or what that is differentiated */
static void row_slopes(int derivative, const real *x, const real *slope, real *result, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        result[i] = derivative ? (x[i] > 0 ? 1 : x[i] <= 0 ? slope[i] : x[i]) : x[i] <= 0 ? slope[i] * x[i] : x[i];
}

static void row_activate(const dtd_step *s, const real *const *operand, real *result, int64_t n)
{
    if (operand[1])
        row_slopes(s->derivative, operand[0], operand[1], result, n);
    else if (s->derivative)
        NAME(row_derivative)(s, operand[0], result, n);
    else
        NAME(row_activation)(s, operand[0], result, n);
}

void NAME(activate)(const dtd_step *s, void *const *bases, int n_threads)
{
    const dtd_view *operands[] = {&s->x, &s->m};
    NAME(strided)(s, bases, n_threads, row_activate, operands, COUNT(operands), 0);
}

static void row_affine(const dtd_step *s, const real *const *operand, real *result, int64_t n)
{
    const real *x = operand[0], *weight = operand[1], *bias = operand[2];
    (void)s;
    for (int64_t i = 0; i < n; i++)
        result[i] = x[i] * weight[i];
    for (int64_t i = 0; i < n && bias; i++)
        result[i] += bias[i];
}

void NAME(affine)(const dtd_step *s, void *const *bases, int n_threads)
{
    const dtd_view weight = NAME(per_channel)(&s->weight), bias = NAME(per_channel)(&s->bias);
    const dtd_view *operands[] = {&s->x, &weight, &bias};
    NAME(strided)(s, bases, n_threads, row_affine, operands, COUNT(operands), 0);
}

/* d = m + bias_d + coefficient·sgn(y)·(terms + |bias_d|), m = y - bias */
static void paired(real coefficient, const real *terms, const real *m, const real *y, const real *bias_d, real *d,
                   int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        real b = bias_d ? bias_d[i] : 0, size = coefficient * (terms[i] + (b < 0 ? -b : b));
        d[i] = m[i] + b + (y[i] < 0 ? -size : size);
    }
}

/* operands: terms, bias_d, act(y), y - bias, bias, scale, terms_prev */
static void row_factor(const dtd_step *s, const real *const *operand, real *result, int64_t n)
{
    const real *terms = operand[0], *bias_d = operand[1], *m = operand[3], *bias = operand[4];
    real d[DTD_ROW], sum[DTD_ROW];
    const real *y = m;
    if (m && bias) {
        for (int64_t i = 0; i < n; i++)
            sum[i] = m[i] + bias[i];
        y = sum;
    }
    if (s->factor_kind == DTD_F_PAIRED)
        paired(s->coefficient, terms, m, y, bias_d, d, n);
    else
        for (int64_t i = 0; i < n; i++)
            d[i] = bias_d ? terms[i] + bias_d[i] : terms[i];
    NAME(row_factor)(s, d, y, operand[2], operand[5], s->factor_kind == DTD_F_SIGNED ? m : operand[6], result, n);
}

void NAME(factor)(const dtd_step *s, void *const *bases, int n_threads)
{
    /* a bias that varies along other axes too is a view */
    const dtd_view bias_d = present(&s->other) ? s->other : NAME(per_channel)(&s->bias_d),
                   bias = present(&s->shift) ? s->shift : NAME(per_channel)(&s->bias);
    const dtd_view *operands[] = {&s->terms, &bias_d, &s->x, &s->m, &bias, &s->scale, &s->terms_prev};
    dtd_step step = *s; /* its result goes to the view `factor` */
    step.out = s->factor;
    NAME(strided)(&step, bases, n_threads, row_factor, operands, COUNT(operands), 0);
}
