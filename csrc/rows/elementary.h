/* elementary.h: exp, erfc and what is made of them, in double for results in float.
 *
 * Each is one chain of sums and products without a branch, so that loops over them become vectors; the errors are below
 * 2^-30 of the value, which rounding to float hides. */
#ifndef DTD_ELEMENTARY_H
#define DTD_ELEMENTARY_H

#include "base/kernel.h"

#include <string.h>

/* exp(x) for |x| < 700, relative error below 2^-34: e^x = 2^n e^r, |r| <= log(2)/2. */
ALWAYS_INLINE double exp_of(double x)
{
    const double shifted = x * 1.44269504088896341 + 0x1.8p52; /* n in its last bits */
    const double n = shifted - 0x1.8p52, r = (x - n * 0x1.62e42fefa38p-1) - n * 0x1.ef35793c7673p-45;
    int64_t bits;
    double scale;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (int64_t)((uint64_t)(bits + 1023) << 52);
    memcpy(&scale, &bits, sizeof scale);
    double p = 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1;
    p = p * r + 1;
    return p * scale;
}

/* log(erfc(z)/t) for 0 <= z <= 11, t = 2 / (2 + z); with t exp of it, erfc has a relative error below 2^-31.  Q + z^2
 * interpolates it at 13 Chebyshev nodes of t in [2/13, 1]. */
ALWAYS_INLINE double log_erfc_of(double t, double z)
{
    const double u = (t - 15.0 / 26) * (26.0 / 11);
    double q = 6.34496089971793974e-6;
    q = q * u - 6.68482992473427675e-6;
    q = q * u - 0.0000441035189566709813;
    q = q * u + 0.00008446921948934209;
    q = q * u + 0.000155901702966457069;
    q = q * u - 0.000628500559728076315;
    q = q * u - 0.000246992932385166265;
    q = q * u + 0.00403312102891884732;
    q = q * u - 0.00141368456600988229;
    q = q * u - 0.0307761577577393431;
    q = q * u + 0.0176337944123473868;
    q = q * u + 0.578567966580528862;
    q = q * u - 0.567365473467333747;
    return q - z * z;
}

/* 1 / (1 + exp(-x)), relative error below 2^-32 */
ALWAYS_INLINE double sigmoid_of(double x)
{
    const double size = x < 0 ? x : -x, e = exp_of(size < -200 ? -200 : size);
    return (x < 0 ? e : 1) / (1 + e);
}

#endif
