/* nest.h: element-wise steps on strided views.
 *
 * A nest walks up to DTD_NEST views of one shape together.  Axes are ordered as they lie in memory of the result and
 * merged where all views permit; the innermost is handed out in rows of contiguous numbers (gathered where a view's
 * stride is not 1).  When a view is contiguous along another axis than the result (a transpose), that axis is walked
 * between short rows, so that both sides use whole cache lines.
 */
#ifndef DTD_NEST_H
#define DTD_NEST_H

#include "rows.h"

enum { DTD_NEST = 8, DTD_NEST_AXES = 7 };

/* result[i] from the operands' rows; operand[k] is NULL where the view is absent.  The result may be any of the
 * operands. */
typedef void (*dtd_row_function)(const dtd_step *s, const real *const *operand, real *result, int64_t n);

/* out (+)= row(operands) with s->accumulate; row is NULL for a copy.  kept: bit k says that operand k has the batch of
 * the forward pass (n / repeat). */
void NAME(nest)(const dtd_step *s, void *const *bases, int n_threads, dtd_row_function row,
                const dtd_view *const *operands, int n_operands, unsigned kept);

/* A vector over channels as a view. */
dtd_view NAME(per_channel)(const dtd_ref *r);

#endif
