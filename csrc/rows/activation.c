/* activation.c: activations and their derivatives, on rows. */
#include "elementary.h"
#include "rows.h"

#include <tgmath.h>

static const real SQRT_HALF = 0.70710678118654752, SQRT_2_OVER_PI = 0.79788456080286536,
                  INV_SQRT_2_PI = 0.39894228040143268, GELU_CUBIC = 0.044715, SELU_ALPHA = 1.6732632423543772,
                  SELU_SCALE = 1.0507009873554805;

/* the last odd number of tanh's continued fraction: what is left out is 2e-19 of x - tanh(x), |x| < 1 */
enum { LAMBERT = 19 };

#ifdef DTD_DOUBLE
/* 1 / (1 + exp(-x)) without overflow */
ALWAYS_INLINE real sigmoid(real x)
{
    real e = exp(x < 0 ? x : -x);
    return (x < 0 ? e : 1) / (1 + e);
}

static void gelu_row(const real *x, real *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = 0.5 * x[i] * erfc(-x[i] * SQRT_HALF);
}
#else
ALWAYS_INLINE real sigmoid(real x) { return (real)sigmoid_of(x); }

/* x Phi(x), relative error below 2^-30.  In stages: one chain of sums and products would be too long for a processor to
 * begin those of the next numbers meanwhile. */
static void gelu_row(const real *x, real *y, int64_t n)
{
    enum { AT_ONCE = 64 };
    double z[AT_ONCE], t[AT_ONCE], log_tail[AT_ONCE];
    for (; n > 0; n -= AT_ONCE, x += AT_ONCE, y += AT_ONCE) {
        const int m = (int)min64(n, AT_ONCE);
        for (int i = 0; i < m; i++) {
            z[i] = fabs((double)x[i]) * 0.70710678118654752;
            t[i] = 2 / (2 + (z[i] > 11 ? 11 : z[i]));
        }
        for (int i = 0; i < m; i++)
            log_tail[i] = log_erfc_of(t[i], z[i] > 11 ? 11 : z[i]);
        for (int i = 0; i < m; i++) {
            const double v = x[i], tail = 0.5 * v * (t[i] * exp_of(log_tail[i])), lower = z[i] > 11 ? 0 : tail;
            y[i] = (real)(v < 0 ? lower : v - lower);
        }
    }
}
#endif

ALWAYS_INLINE real clip(real x, real low, real high) { return x < low ? low : x > high ? high : x; }

/* 1 strictly inside, 0 on and outside the bounds */
ALWAYS_INLINE real inside(real x, real low, real high)
{
    return x > low && x < high ? 1 : x <= low || x >= high ? 0 : x;
}

ALWAYS_INLINE real softplus(real x) { return positive(x) + log1p(exp(x < 0 ? x : -x)); }

/* the argument of tanh in gelu_tanh, doubled: 1 + tanh(u) = 2 sigmoid(2u) */
ALWAYS_INLINE real gelu_argument(real x) { return 2 * SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x); }

/* 0 and 1 beyond the clip, where x² may overflow */
ALWAYS_INLINE real gelu_tanh_derivative(real t)
{
    real x = clip(t, -32, 32), u = gelu_argument(x), p = sigmoid(u);
    return p + x * p * sigmoid(-u) * 2 * SQRT_2_OVER_PI * (1 + 3 * GELU_CUBIC * x * x);
}

/* phi(x) x + Phi(x) */
ALWAYS_INLINE real gelu_derivative(real x)
{
    return 0.5f * erfc(-x * SQRT_HALF) + x * INV_SQRT_2_PI * exp(-0.5f * x * x);
}

/* 1 - tanh²(x) = 4 sigmoid(2x) sigmoid(-2x), which does not cancel */
ALWAYS_INLINE real tanh_derivative(real x) { return 4 * sigmoid(2 * x) * sigmoid(-2 * x); }

ALWAYS_INLINE real silu_derivative(real x, real a) { return sigmoid(a * x) * (1 + a * x * sigmoid(-a * x)); }

/* 1 outside [-a, a], 0 inside and on its ends */
ALWAYS_INLINE real outside(real x, real a) { return x > a || x < -a ? 1 : x <= a ? 0 : x; }

/* tanh(softplus(x)) = ((1 + e^x)^2 - 1) / ((1 + e^x)^2 + 1), in e = exp(-|x|) */
ALWAYS_INLINE real mish_gate(real x)
{
    real e = exp(x < 0 ? x : -x), n = x < 0 ? e * (e + 2) : 1 + 2 * e;
    return n / (n + 2 * (x < 0 ? 1 : e * e));
}

/* gate + x (1 - gate^2) sigmoid(x), where (1 - gate^2) sigmoid(x) = 4 e^x (1 + e^x) / ((1 + e^x)^2 + 1)^2 */
ALWAYS_INLINE real mish_derivative(real x)
{
    real e = exp(x < 0 ? x : -x), d = x < 0 ? e * (e + 2) + 2 : 1 + 2 * e + 2 * e * e;
    return mish_gate(x) + x * 4 * e * (1 + e) * (x < 0 ? 1 : e) / (d * d);
}

/* x - tanh(x), which cancels near 0: there x q / (1 + q), with tanh(x) = x / (1 + q) and Lambert's
 * q = x²/(3 + x²/(5 + x²/(7 + ...))) */
ALWAYS_INLINE real tanh_shrink(real x)
{
    real q = 0;
    if (!(fabs(x) < 1))
        return x - tanh(x);
    for (int odd = LAMBERT; odd > 1; odd -= 2)
        q = x * x / (odd + q);
    return x * q / (1 + q);
}

/* x·clip(x/6 + 1/2, 0, 1) */
ALWAYS_INLINE real hard_swish(real x) { return x * clip((x + 3) / 6, 0, 1); }
ALWAYS_INLINE real hard_swish_derivative(real x) { return x <= -3 ? 0 : x >= 3 ? 1 : (2 * x + 3) / 6; }

#define ROW(formula)                                                                                                   \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
        real t = x[i];                                                                                                 \
        y[i] = formula;                                                                                                \
    }                                                                                                                  \
    break

void NAME(row_activation)(const dtd_step *s, const real *x, real *y, int64_t n)
{
    const real a = s->act_alpha, b = s->act_beta;
    switch ((dtd_activation)s->activation) {
    case DTD_IDENTITY: ROW(t);
    case DTD_RELU: ROW(positive(t));
    case DTD_LEAKY_RELU: ROW(t <= 0 ? a * t : t);
    case DTD_CLIP: ROW(clip(t, a, b));
    case DTD_THRESHOLD: ROW(t <= a ? b : t);
    case DTD_HARD_SHRINK: ROW(t <= a && t >= -a ? 0 : t);
    case DTD_SOFT_SHRINK: ROW(t - clip(t, -a, a));
    case DTD_TANH_SHRINK: ROW(tanh_shrink(t));
    case DTD_ELU: ROW(t > 0 ? t : a * expm1(t));
    case DTD_SELU: ROW(SELU_SCALE * (t > 0 ? t : SELU_ALPHA * expm1(t)));
    case DTD_CELU: ROW(t > 0 ? t : a * expm1(t / a));
    case DTD_SILU: ROW(t * sigmoid(a * t));
    case DTD_GELU: gelu_row(x, y, n); break;
    case DTD_GELU_TANH: ROW(t * sigmoid(gelu_argument(t)));
    case DTD_MISH: ROW(t * mish_gate(t));
    case DTD_SIGMOID: ROW(sigmoid(t));
    case DTD_HARD_SIGMOID: ROW(clip(a * t + b, 0, 1));
    case DTD_LOG_SIGMOID: ROW(-softplus(-t));
    case DTD_HARD_SWISH: ROW(hard_swish(t));
    case DTD_TANH: ROW(tanh(t));
    case DTD_SOFTPLUS: ROW(softplus(a * t) / a);
    case DTD_SOFTSIGN: ROW(t / (1 + fabs(t)));
    case DTD_N_ACTIVATIONS: break;
    }
}

void NAME(row_derivative)(const dtd_step *s, const real *x, real *y, int64_t n)
{
    const real a = s->act_alpha, b = s->act_beta;
    switch ((dtd_activation)s->activation) {
    case DTD_IDENTITY: ROW(t == t ? 1 : t);
    case DTD_RELU: ROW(is_positive(t));
    case DTD_LEAKY_RELU: ROW(t > 0 ? 1 : t <= 0 ? a : t);
    case DTD_CLIP: ROW(inside(t, a, b));
    case DTD_THRESHOLD: ROW(t > a ? 1 : t <= a ? 0 : t);
    case DTD_HARD_SHRINK:
    case DTD_SOFT_SHRINK: ROW(outside(t, a));
    case DTD_TANH_SHRINK: ROW(tanh(t) * tanh(t));
    case DTD_ELU: ROW(t > 0 ? 1 : a * exp(t));
    case DTD_SELU: ROW(t > 0 ? SELU_SCALE : SELU_SCALE * SELU_ALPHA * exp(t));
    case DTD_CELU: ROW(t > 0 ? 1 : exp(t / a));
    case DTD_SILU: ROW(silu_derivative(t, a));
    case DTD_GELU: ROW(gelu_derivative(t));
    case DTD_GELU_TANH: ROW(gelu_tanh_derivative(t));
    case DTD_MISH: ROW(mish_derivative(t));
    case DTD_SIGMOID: ROW(sigmoid(t) * sigmoid(-t));
    case DTD_HARD_SIGMOID: ROW(a * inside(a * t + b, 0, 1));
    case DTD_LOG_SIGMOID: ROW(sigmoid(-t));
    case DTD_HARD_SWISH: ROW(hard_swish_derivative(t));
    case DTD_TANH: ROW(tanh_derivative(t));
    case DTD_SOFTPLUS: ROW(sigmoid(a * t));
    case DTD_SOFTSIGN: ROW((1 / (1 + fabs(t))) * (1 / (1 + fabs(t))));
    case DTD_N_ACTIVATIONS: break;
    }
}
