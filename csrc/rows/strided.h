/* strided.h: strided views of one shape as rows of contiguous numbers, for element-wise steps.
 *
 * Up to DTD_STRIDED_VIEWS views are walked together.  Axes are ordered as the result lies in memory, and merged where
 * all views permit it.  The innermost axis is handed out in rows; a view whose stride is not 1 is gathered into a row.
 * If a view is contiguous along another axis than the result (a transpose), that axis is walked between short rows, so
 * that both sides use whole cache lines.
 */
#ifndef DTD_STRIDED_H
#define DTD_STRIDED_H

#include "base/simd.h"
#include "rows.h"

enum { DTD_STRIDED_VIEWS = 9, DTD_STRIDED_AXES = 7 };

/* result[i] from the operands' rows; operand[k] is NULL where the view is absent.  The result may be any of the
 * operands. */
typedef void (*dtd_row_function)(const dtd_step *s, const real *const *operand, real *result, int64_t n);

/* out (+)= row(operands) with s->accumulate; row is NULL for a copy.  kept: bit k says that operand k has the batch of
 * the forward pass (n / repeat). */
void NAME(strided)(const dtd_step *s, void *const *bases, int n_threads, dtd_row_function row,
                   const dtd_view *const *operands, int n_operands, unsigned kept);

enum { DTD_SUMS_MOST = 8, DTD_LANES = VECTOR / sizeof(double) }; /* sums of a step; each is added up in so many lanes */

/* Rows of n elements, a multiple of DTD_LANES, `step[k]` apart in operand k; at most DTD_ROW elements. */
typedef struct {
    const real *operand[DTD_STRIDED_VIEWS]; /* NULL where the view is absent */
    int64_t step[DTD_STRIDED_VIEWS], count, n;
} dtd_rows;

/* lanes[k][..] += what the elements of the rows give.  Elements that are 0 give 0. */
typedef void (*dtd_sum_function)(const dtd_step *s, const dtd_rows *rows, double (*lanes)[DTD_LANES]);

/* out[n, k, .., b] = the sums, in double, over block b of sample n of the operands, which have the shape of the first
 * one.  The blocks are so many as out is wide, and of about one size.  Their elements, and the order in which they are
 * added, depend on the layout of one sample alone. */
void NAME(sum_strided)(const dtd_step *s, void *const *bases, int n_threads, dtd_sum_function row,
                       const dtd_view *const *operands, int n_operands);

/* A vector over channels as a view. */
dtd_view NAME(per_channel)(const dtd_ref *r);

#endif
