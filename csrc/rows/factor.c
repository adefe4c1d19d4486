/* factor.c: factors and multipliers (dtd_factor, dtd_multiplier), on rows. */
#include "rows.h"

/* d + stabilizer·sgn d, sgn 0 = +1 */
ALWAYS_INLINE real stabilised(real d, real stabilizer) { return d + (d < 0 ? -stabilizer : stabilizer); }

/* f where y has the selected sign, else 0; a NaN passes */
ALWAYS_INLINE real selected(int select, real y, real f)
{
    int dropped = select == DTD_Y_POSITIVE ? y <= 0 : y >= 0;
    return dropped ? 0 : f;
}

void NAME(row_factor)(const dtd_step *s, const real *d, const real *y, const real *a, const real *scale,
                      const real *other, real *factor, int64_t n)
{
    const real stabilizer = s->stabilizer, coefficient = s->coefficient;
    real c[DTD_ROW];
    if (s->mode == DTD_F_DERIVATIVE) {
        NAME(row_derivative)(s, y, c, n);
        for (int64_t i = 0; i < n; i++)
            factor[i] = scale ? c[i] * scale[i] : c[i];
        return;
    }
    if (s->mode == DTD_F_SIGNED) {
        for (int64_t i = 0; i < n; i++)
            c[i] = y[i] < 0 ? negative(other[i] - d[i]) - stabilizer : d[i] + stabilizer;
        for (int64_t i = 0; i < n; i++)
            factor[i] = scale ? quotient(c[i], scale[i]) : c[i];
        return;
    }
    for (int64_t i = 0; i < n; i++)
        c[i] = other && other[i] == 0 ? 1 : coefficient;
    if (s->mode == DTD_F_GATE) {
        for (int64_t i = 0; i < n; i++)
            c[i] = quotient(c[i] * a[i], stabilised(d[i], stabilizer));
        for (int64_t i = 0; i < n && scale; i++)
            c[i] *= scale[i];
    } else {
        for (int64_t i = 0; i < n && scale; i++)
            c[i] *= scale[i];
        for (int64_t i = 0; i < n; i++)
            c[i] = quotient(stabilised(d[i], stabilizer), c[i]);
    }
    if (s->select == DTD_ALL)
        for (int64_t i = 0; i < n; i++)
            factor[i] = c[i];
    else
        for (int64_t i = 0; i < n; i++)
            factor[i] = selected(s->select, y[i], c[i]);
}

void NAME(row_multiplier)(int multiplier, const real *m, real *r, int64_t n)
{
#define MULTIPLY_BY(formula)                                                                                           \
    for (int64_t i = 0; i < n; i++)                                                                                    \
        r[i] = (formula) * r[i];                                                                                       \
    break
    switch (multiplier) {
    case DTD_M_NONE: break;
    case DTD_M_TIMES: MULTIPLY_BY(m[i]);
    case DTD_M_POSITIVE: MULTIPLY_BY(is_positive(m[i]));
    case DTD_M_NEGATIVE: MULTIPLY_BY(is_negative(m[i]));
    case DTD_M_TIMES_POSITIVE: MULTIPLY_BY(positive(m[i]));
    case DTD_M_TIMES_NEGATIVE: MULTIPLY_BY(negative(m[i]));
    }
}
