/* rows.h: the scalar functions of a step, on rows of n contiguous numbers; each result depends on its element alone. */
#ifndef DTD_ROWS_H
#define DTD_ROWS_H

#include "base/kernel.h"

#define DTD_ROW 512 /* the longest row that kernels hold on the stack */

/* y[i] = act(x[i]); y may be x */
void NAME(row_activation)(const dtd_step *s, const real *x, real *y, int64_t n);

/* y[i] = act'(x[i]), from the left at a kink; y may be x */
void NAME(row_derivative)(const dtd_step *s, const real *x, real *y, int64_t n);

/* r[i] = multiplier(m[i]) * r[i] */
void NAME(row_multiplier)(int multiplier, const real *m, real *r, int64_t n);

/* What dtd_factor says.  d = terms + bias_d (not yet stabilised); y for `select` and the derivative, else may be
 * absent; a = act(y) for the gate; scale absent = 1; where `other` (may be absent) is 0 the coefficient is 1, but for
 * DTD_F_SIGNED, whose `other` is y - bias. factor may be any of the inputs. */
void NAME(row_factor)(const dtd_step *s, const real *d, const real *y, const real *a, const real *scale,
                      const real *other, real *factor, int64_t n);

#endif
