/* sums.c: sums over samples in double, for the ledger (plan/account.py). */
#include "strided.h"

#include "base/wide.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

_Static_assert((int)DTD_LANES == (int)WIDE_LANES, "a lane of a vector is a lane of a sum");

ALWAYS_INLINE wide where(longs mask, wide v) { return (wide)((longs)v & mask); }
ALWAYS_INLINE wide otherwise(longs mask, wide v) { return (wide)((longs)v & ~mask); }
ALWAYS_INLINE wide size_of(wide v) { return (wide)((longs)v & INT64_MAX); }
ALWAYS_INLINE wide with_sign_of(wide sign, wide v) { return (wide)((longs)v ^ ((longs)(sign < 0) & INT64_MIN)); }

/* multiplier(m) * x */
ALWAYS_INLINE wide product(int multiplier, wide m, wide x)
{
    switch ((dtd_multiplier)multiplier) {
    case DTD_M_NONE:
    case DTD_N_MULTIPLIERS: break;
    case DTD_M_TIMES: return m * x;
    case DTD_M_POSITIVE: return otherwise(m <= 0, x);
    case DTD_M_NEGATIVE: return otherwise(m >= 0, x);
    case DTD_M_TIMES_POSITIVE: return otherwise(m < 0, m * x);
    case DTD_M_TIMES_NEGATIVE: return otherwise(m > 0, m * x);
    case DTD_M_SIGN: return with_sign_of(m, x);
    case DTD_M_ABSOLUTE: return size_of(m) * x;
    }
    return x;
}

ALWAYS_INLINE const real *row_of(const dtd_rows *rows, int k, int64_t row)
{
    return rows->operand[k] ? rows->operand[k] + row * rows->step[k] : NULL;
}

/* operands: x, m */
static void row_sums(const dtd_step *s, const dtd_rows *rows, double (*lanes)[DTD_LANES])
{
    wide sum = *(wide *)lanes[0], size = *(wide *)lanes[1];
    for (int64_t row = 0; row < rows->count; row++) {
        const real *x = row_of(rows, 0, row), *m = row_of(rows, 1, row);
        for (int64_t i = 0; i < rows->n; i += DTD_LANES) {
            wide r = widened(at(x, i));
            if (m)
                r = product(s->multiplier, widened(at(m, i)), r);
            sum += r;
            size += size_of(r);
        }
    }
    *(wide *)lanes[0] = sum, *(wide *)lanes[1] = size;
}

void NAME(sums)(const dtd_step *s, void *const *bases, int n_threads)
{
    const dtd_view *operands[] = {&s->x, &s->m};
    NAME(sum_strided)(s, bases, n_threads, row_sums, operands, COUNT(operands));
}

/* What neurons multiply their terms with: x where there is no factor, else x * factor or x / factor. */
ALWAYS_INLINE wide shared(const dtd_step *s, const real *factor, int64_t i, wide x)
{
    if (!factor)
        return x;
    const wide f = widened(at(factor, i));
    if (s->factor_kind == DTD_F_GATE)
        return x * f;
    return otherwise(f == 0, x / f);
}

/* Where y has not the selected sign. */
ALWAYS_INLINE longs dropped(int select, wide y)
{
    switch ((dtd_sign)select) {
    case DTD_POSITIVE: return (longs)(y <= 0);
    case DTD_NEGATIVE: return (longs)(y >= 0);
    case DTD_NONZERO: return (longs)(y == 0);
    case DTD_ANY_SIGN:
    case DTD_N_SIGNS: break;
    }
    return (longs){0};
}

/* What absorbs relevance beside what has no denominator, USUAL of these: R = m x, a gate, terms and no gamma; ALL: what
 * few rules ask for, too. */
enum { NOTHING, USUAL, BESIDE_TERMS, ALL };

/* operands: x, m, factor, terms, terms_prev, y - bias, bias, bias_d, scale; bias_d from USUAL on, and for ALL alone
 * terms_prev, y, bias and scale. */
ALWAYS_INLINE void add_account(const dtd_step *s, const dtd_rows *rows, double (*lanes)[DTD_LANES], const int what)
{
    wide came = {0}, size = {0}, lost = {0}, by_bias = {0}, by_stabilizer = {0}, bias_size = {0}, t_size = {0},
         terms_size = {0};
    for (int64_t row = 0; row < rows->count; row++) {
        const real *x = row_of(rows, 0, row), *m = row_of(rows, 1, row), *factor = row_of(rows, 2, row),
                   *terms = row_of(rows, 3, row);
        const real *negative_terms = what < ALL ? NULL : row_of(rows, 4, row),
                   *y = what < ALL ? NULL : row_of(rows, 5, row), *bias = row_of(rows, 6, row),
                   *bias_d = what < USUAL ? NULL : row_of(rows, 7, row),
                   *scale = what < ALL ? NULL : row_of(rows, 8, row);
        for (int64_t i = 0; i < rows->n; i += DTD_LANES) {
            wide r = widened(at(x, i)), t, absorbed = {0};
            if (what == USUAL)
                t = r * widened(at(factor, i));
            else
                t = shared(s, factor, i, r);
            if (what == USUAL || m)
                r *= widened(at(m, i));
            if (y) {
                narrow value = at(y, i);
                if (bias)
                    value += at(bias, i);
                const longs none = dropped(s->select, widened(value));
                r = otherwise(none, r), t = otherwise(none, t);
            }
            came += r;
            size += size_of(r);
            if (negative_terms) {
                const longs empty = (longs)(widened(at(negative_terms, i)) == 0);
                const wide there = s->coefficient * r, one = where(empty, r) + otherwise(empty, there);
                r = s->coefficient > 0 ? one : there;
                if (s->coefficient < 0)
                    t = otherwise(empty, t);
            } else
                r *= s->coefficient;
            if (scale) {
                const wide divisor = widened(at(scale, i));
                t = otherwise(divisor == 0, t / divisor);
            }
            const longs nothing = (longs)(t == 0);
            lost += where(nothing, r);
            if (bias_d) {
                const wide b = widened(at(bias_d, i));
                absorbed = t * b;
                if (what != USUAL)
                    absorbed += with_sign_of(t * r, s->gamma * t * size_of(b));
                by_bias += absorbed;
                bias_size += size_of(absorbed);
            }
            if (what >= USUAL) { /* |t| sgn r = r / |d| = t sgn d */
                const wide own = size_of(t), signed_size = with_sign_of(r, own);
                by_stabilizer += signed_size;
                t_size += own;
                absorbed += s->stabilizer * signed_size;
            }
            if (what == USUAL || terms)
                terms_size += size_of(t * widened(at(terms, i)));
            else
                terms_size += otherwise(nothing, size_of(r - absorbed));
        }
    }
    const wide sums[DTD_SUMS_MOST] = {came, size, lost, by_bias, by_stabilizer, bias_size, t_size, terms_size};
    for (int k = 0; k < DTD_SUMS_MOST; k++)
        *(wide *)lanes[k] += sums[k];
}

static void row_account(const dtd_step *s, const dtd_rows *rows, double (*lanes)[DTD_LANES])
{
    const real *const *operand = rows->operand;
    if (operand[4] || operand[5] || operand[8])
        add_account(s, rows, lanes, ALL);
    else if (operand[1] && operand[2] && s->factor_kind == DTD_F_GATE && operand[3] && s->gamma == 0)
        add_account(s, rows, lanes, USUAL);
    else if (operand[7] || s->stabilizer != 0)
        add_account(s, rows, lanes, BESIDE_TERMS);
    else
        add_account(s, rows, lanes, NOTHING);
}

/* Of x = R, or R = m x, which neurons share by terms / d with d = terms + bias_d + stabilizer sgn d; t = coefficient R
 * / d:
 *
 *   0: R                         1: |R|
 *   2: coefficient R where t is 0
 *   3: t bias_d                  4: t sgn d
 *   5, 6: their absolute values  7: |t terms|; without terms |coefficient R - t (bias_d + stabilizer sgn d)|
 *
 * With gamma, bias_d + gamma sgn d |bias_d| stands for bias_d. */
void NAME(account)(const dtd_step *s, void *const *bases, int n_threads)
{
    /* a bias that varies along other axes too is a view */
    const dtd_view bias_d = present(&s->other) ? s->other : NAME(per_channel)(&s->bias_d),
                   bias = present(&s->shift) ? s->shift : NAME(per_channel)(&s->bias);
    const dtd_view *operands[] = {&s->x,      &s->m, &s->factor, &s->terms, &s->terms_prev,
                                  &s->y_prev, &bias, &bias_d,    &s->scale};
    NAME(sum_strided)(s, bases, n_threads, row_account, operands, COUNT(operands));
}
