/* place.c: buffers that live at different times in one arena. */
#include "dtdfast.h"

#include <string.h>

int64_t dtd_place(int64_t n, const int64_t *size, const int64_t *first, const int64_t *last, int64_t *offset,
                  int64_t *order)
{
    int64_t top = 0;
    for (int64_t b = 0; b < n; b++) {
        int64_t end = 0; /* of what lies below the gap that is looked at */
        for (int64_t k = 0; k < b; k++) {
            const int64_t rival = order[k];
            if (first[rival] > last[b] || last[rival] < first[b])
                continue;
            if (offset[rival] - end >= size[b])
                break;
            if (end < offset[rival] + size[rival])
                end = offset[rival] + size[rival];
        }
        offset[b] = end;
        int64_t low = 0, high = b;
        while (low < high) { /* before all that lie at this offset, or above */
            const int64_t middle = (low + high) / 2;
            if (offset[order[middle]] < end)
                low = middle + 1;
            else
                high = middle;
        }
        memmove(order + low + 1, order + low, (size_t)(b - low) * sizeof *order);
        order[low] = b;
        if (top < end + size[b])
            top = end + size[b];
    }
    return top;
}
