/* verify.h: the check that every step passes before it runs. */
#ifndef DTD_VERIFY_H
#define DTD_VERIFY_H

#include "dtdfast.h"

/* Why the kernels cannot run a step, or NULL; `bfloat16` says that the instruction set has it.  The message is the
 * calling thread's, until its next refusal. */
const char *dtd_refusal(const dtd_step *s, int bfloat16);

#endif
