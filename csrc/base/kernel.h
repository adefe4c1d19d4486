/* kernel.h: types, names and addresses that all kernels share.
 *
 * Every file that includes this header is compiled once per instruction set (DTD_ISA) and type of numbers: for float,
 * and for double with DTD_DOUBLE.  NAME() gives each copy its own names.
 */
#ifndef DTD_KERNEL_H
#define DTD_KERNEL_H

#include "dtdfast.h"
#include "operations.h"
#include "parallel.h"

#include <stddef.h>

#ifdef DTD_DOUBLE
typedef double real; /* what is computed with */
typedef float other;
#define DTD_REAL double
#else
typedef float real;
typedef double other;
#define DTD_REAL float
#endif

#define DTD_PASTE_(name, isa, real) dtd_##name##_##isa##_##real
#define DTD_PASTE(name, isa, real) DTD_PASTE_(name, isa, real)
#define NAME(name) DTD_PASTE(name, DTD_ISA, DTD_REAL)

/* Kernels that stand in for those of the same name on CPUs with further units. */
#ifdef DTD_UNIT
#define UNIT(name) DTD_PASTE(name, DTD_UNIT, DTD_REAL)
#else
#define UNIT(name) NAME(name)
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { AXIS_N, AXIS_C, AXIS_D, AXIS_H, AXIS_W, AXIS_EXTRA };

typedef void (*dtd_kernel)(const dtd_step *s, void *const *bases, int n_threads);

/* As dtd_body, for an operation that has several bodies. */
typedef const char *(*dtd_body_name)(const dtd_step *s, void *const *bases, int choice);

/* The kernels of one instruction set and type, by dtd_op. */
typedef struct {
    struct {
        dtd_kernel run;
        dtd_body_name body; /* NULL: the operation has one body */
    } of[DTD_N_OPS];
} dtd_kernel_table;

#define DECLARE(op, of, kernel, body, needs, takes)                                                                    \
    void NAME(kernel)(const dtd_step *s, void *const *bases, int n_threads);
OPERATIONS(DECLARE)
#undef DECLARE

const char *NAME(dense_body)(const dtd_step *s, void *const *bases, int choice);
const char *NAME(scatter_body)(const dtd_step *s, void *const *bases, int choice);

/* -------------------------------------------------------------------------------------------------------- addresses */

/* All views of a step. */
#define DTD_VIEWS(s)                                                                                                   \
    &(s)->out, &(s)->factor, &(s)->terms, &(s)->x, &(s)->y_prev, &(s)->terms_prev, &(s)->m, &(s)->scale, &(s)->other,  \
        &(s)->shift

ALWAYS_INLINE int present(const dtd_view *v) { return v->base >= 0; }

ALWAYS_INLINE real *reals(const dtd_view *v, void *const *bases)
{
    return v->base < 0 ? NULL : (real *)bases[v->base] + v->offset;
}

ALWAYS_INLINE const real *vector(const dtd_ref *r, void *const *bases)
{
    return r->base < 0 ? NULL : (const real *)bases[r->base] + r->offset;
}

ALWAYS_INLINE const int64_t *table(const dtd_ref *r, void *const *bases)
{
    return r->base < 0 ? NULL : (const int64_t *)bases[r->base] + r->offset;
}

ALWAYS_INLINE int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
ALWAYS_INLINE int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
ALWAYS_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Indices of an item numbered over all axes but `skip` (-1: over all axes), the last axis fastest; index[skip] = 0. */
ALWAYS_INLINE void unravel(int64_t item, const int64_t *shape, int skip, int64_t *index)
{
    for (int a = AXIS_EXTRA; a >= 0; a--) {
        index[a] = a == skip ? 0 : item % shape[a];
        item = a == skip ? item : item / shape[a];
    }
}

ALWAYS_INLINE int64_t count_without(const int64_t *shape, int skip)
{
    int64_t n = 1;
    for (int a = 0; a <= AXIS_EXTRA; a++)
        n *= a == skip ? 1 : shape[a];
    return n;
}

ALWAYS_INLINE int64_t offset_of(const dtd_view *v, const int64_t *index)
{
    int64_t offset = 0;
    for (int a = 0; a <= AXIS_EXTRA; a++)
        offset += index[a] * v->stride[a];
    return offset;
}

/* The sample of what the forward pass kept: of m and factor. */
ALWAYS_INLINE int64_t kept_sample(const dtd_step *s, int64_t n) { return s->repeat > 1 ? n / s->repeat : n; }

/* The sample of a view that the targets of a sample may share. */
ALWAYS_INLINE int64_t sample_of(const dtd_step *s, const dtd_view *v, int64_t n)
{
    return v->shape[AXIS_N] * s->repeat == s->out.shape[AXIS_N] ? n / s->repeat : n;
}

/* ------------------------------------------------------------------------------------------ scalars that NaN passes */

ALWAYS_INLINE real positive(real t) { return t < 0 ? 0 : t; }
ALWAYS_INLINE real negative(real t) { return t > 0 ? 0 : t; }
ALWAYS_INLINE real is_positive(real t) { return t > 0 ? 1 : t <= 0 ? 0 : t; }
ALWAYS_INLINE real is_negative(real t) { return t < 0 ? 1 : t >= 0 ? 0 : t; }

/* a / b with x/0 := 0; the division is unconditional so that it vectorises */
ALWAYS_INLINE real quotient(real a, real b)
{
    real q = a / (b == 0 ? 1 : b);
    return b == 0 ? 0 : q;
}

#endif
