/* factor.c: factors and multipliers (dtd_factor, dtd_multiplier), on rows. */
#include "rows.h"

/* d + stabilizer·sgn d, sgn 0 = +1 */
ALWAYS_INLINE real stabilised(real d, real stabilizer) { return d + (d < 0 ? -stabilizer : stabilizer); }

/* f where y has the selected sign, else 0; a NaN passes */
ALWAYS_INLINE real selected(int select, real y, real f)
{
    int dropped = select == DTD_POSITIVE ? y <= 0 : select == DTD_NEGATIVE ? y >= 0 : y == 0;
    return dropped ? 0 : f;
}

/* scale (absent: 1) times each number */
static void multiply_by(const real *scale, real *c, int64_t n)
{
    for (int64_t i = 0; i < n && scale; i++)
        c[i] *= scale[i];
}

/* The coefficient of each neuron: 1 where the terms of the other share are there and 0. */
static void coefficients(const dtd_step *s, const real *other, real *c, int64_t n)
{
    const real coefficient = s->coefficient;
    for (int64_t i = 0; i < n; i++)
        c[i] = other && other[i] == 0 ? 1 : coefficient;
}

/* coefficient · act(y) / d · scale */
static void gate(const dtd_step *s, const real *d, const real *a, const real *scale, const real *other, real *c,
                 int64_t n)
{
    const real stabilizer = s->stabilizer;
    coefficients(s, other, c, n);
    for (int64_t i = 0; i < n; i++)
        c[i] = quotient(c[i] * a[i], stabilised(d[i], stabilizer));
    multiply_by(scale, c, n);
}

/* d / (coefficient · scale) */
static void denominator(const dtd_step *s, const real *d, const real *scale, const real *other, real *c, int64_t n)
{
    const real stabilizer = s->stabilizer;
    coefficients(s, other, c, n);
    multiply_by(scale, c, n);
    for (int64_t i = 0; i < n; i++)
        c[i] = quotient(stabilised(d[i], stabilizer), c[i]);
}

static void select_by_sign(const dtd_step *s, const real *y, const real *c, real *factor, int64_t n)
{
    if (s->select == DTD_ANY_SIGN)
        for (int64_t i = 0; i < n; i++)
            factor[i] = c[i];
    else
        for (int64_t i = 0; i < n; i++)
            factor[i] = selected(s->select, y[i], c[i]);
}

void NAME(row_factor)(const dtd_step *s, const real *d, const real *y, const real *a, const real *scale,
                      const real *other, real *factor, int64_t n)
{
    const real stabilizer = s->stabilizer;
    real c[DTD_ROW];
    switch ((dtd_factor)s->factor_kind) {
    case DTD_F_NONE:
    case DTD_N_FACTORS: break;
    case DTD_F_GATE:
        gate(s, d, a, scale, other, c, n);
        select_by_sign(s, y, c, factor, n);
        break;
    case DTD_F_DENOMINATOR:
        denominator(s, d, scale, other, c, n);
        select_by_sign(s, y, c, factor, n);
        break;
    case DTD_F_DERIVATIVE:
        NAME(row_derivative)(s, y, c, n);
        for (int64_t i = 0; i < n; i++)
            factor[i] = scale ? c[i] * scale[i] : c[i];
        break;
    case DTD_F_PAIRED:
        for (int64_t i = 0; i < n; i++)
            c[i] = stabilised(d[i], stabilizer);
        select_by_sign(s, y, c, factor, n);
        break;
    case DTD_F_SIGNED:
        for (int64_t i = 0; i < n; i++)
            c[i] = y[i] < 0 ? negative(other[i] - d[i]) - stabilizer : d[i] + stabilizer;
        for (int64_t i = 0; i < n; i++)
            factor[i] = scale ? quotient(c[i], scale[i]) : c[i];
        break;
    }
}

void NAME(row_multiplier)(int multiplier, const real *m, real *r, int64_t n)
{
#define MULTIPLY_BY(formula)                                                                                           \
    for (int64_t i = 0; i < n; i++)                                                                                    \
        r[i] = (formula) * r[i];                                                                                       \
    break
    switch ((dtd_multiplier)multiplier) {
    case DTD_M_NONE: break;
    case DTD_M_TIMES: MULTIPLY_BY(m[i]);
    case DTD_M_POSITIVE: MULTIPLY_BY(is_positive(m[i]));
    case DTD_M_NEGATIVE: MULTIPLY_BY(is_negative(m[i]));
    case DTD_M_TIMES_POSITIVE: MULTIPLY_BY(positive(m[i]));
    case DTD_M_TIMES_NEGATIVE: MULTIPLY_BY(negative(m[i]));
    case DTD_M_SIGN:
        for (int64_t i = 0; i < n; i++)
            r[i] = m[i] < 0 ? -r[i] : r[i];
        break;
    case DTD_M_ABSOLUTE: MULTIPLY_BY(m[i] < 0 ? -m[i] : m[i]);
    case DTD_N_MULTIPLIERS: break;
    }
}
