/* NVIDIA's driver as far as dtdfast calls it, on the host's memory: checks the order of calls, hands launches to a function of the test,
   and fails a call when told to. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <dlfcn.h>

typedef int status;
enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901 };
enum { CAPACITY = 1 << 22 };

typedef void (*launch_function)(int64_t function, const unsigned *sizes, int64_t shared, int64_t stream, void **parameters, int capturing, int overlapping);
static launch_function on_launch;
static void (*on_graph)(int64_t graph, int launched); /* 0: it is recorded, number 0: in vain */
static int contexts, capturing, broken, after_kernel, mode, streams, recorded, live, modules, events;
static int64_t used, locked, graphs;
static char failing[64];
static int fails_after, fails_with;

void fake_connect(launch_function launch, void (*graph)(int64_t, int)) { on_launch = launch, on_graph = graph; }
int fake_contexts(void) { return contexts; }
int64_t fake_used(void) { return used; }
int64_t fake_locked(void) { return locked; }
int fake_streams(void) { return streams; }
int fake_graphs(void) { return live; }
int fake_recorded(void) { return recorded; }
int fake_modules(void) { return modules; }
int fake_events(void) { return events; }
/* The call of this function after so many others of it returns this status, and does nothing. */
void fake_fail(const char *name, int after, int with) { strncpy(failing, name, sizeof failing - 1), fails_after = after, fails_with = with; }

static status told_to_fail(const char *name)
{
    if (strcmp(name, failing) || fails_after-- > 0)
        return OK;
    failing[0] = 0;
    return fails_with;
}

/* 0 is the default stream: it takes everything but a capture. */
static int known(void *stream) { return !stream || stream == (void *)0x5; }

#define NEEDS_CONTEXT if (contexts < 1) return 201
#define MAY_FAIL { status told = told_to_fail(__func__); if (told) return told; }

status cuInit(unsigned flags) { return flags; }
status cuDriverGetVersion(int *v) { *v = 13000; return OK; }
status cuDeviceGetCount(int *n) { *n = 1; return OK; }
status cuDeviceGet(int *d, int i) { *d = i; return i ? INVALID : OK; }
status cuDeviceGetName(char *name, int n, int d) { strncpy(name, "Fake GPU", (size_t)n); return d; }
status cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 9 : a == 16 ? 132 : a == 97 ? 227 * 1024 : 0; return d; }
status cuDevicePrimaryCtxRetain(void **c, int d) { *c = (void *)0x11; return d; }
status cuCtxPushCurrent_v2(void *c) { contexts++; return c == (void *)0x11 ? OK : 201; }
status cuCtxPopCurrent_v2(void **c) { contexts--; *c = (void *)0x11; return OK; }
status cuMemGetInfo_v2(size_t *f, size_t *t) { NEEDS_CONTEXT; *f = (size_t)(CAPACITY - used), *t = CAPACITY; return OK; }
status cuMemAlloc_v2(uint64_t *p, size_t n)
{
    NEEDS_CONTEXT;
    if (used + (int64_t)n > CAPACITY)
        return OUT_OF_MEMORY;
    int64_t *block = aligned_alloc(256, (n + 511) / 256 * 256);
    block[0] = (int64_t)n, used += (int64_t)n;
    *p = (uint64_t)(block + 32);
    return OK;
}
status cuMemFree_v2(uint64_t p) { NEEDS_CONTEXT; if (capturing && mode != 2) return 900; int64_t *b = (int64_t *)p - 32; used -= b[0]; free(b); return OK; }
status cuMemAllocHost_v2(void **p, size_t n) { NEEDS_CONTEXT; MAY_FAIL; locked += (int64_t)n; int64_t *b = malloc(n + 64); b[0] = (int64_t)n; *p = b + 8; return OK; }
status cuMemFreeHost(void *p) { NEEDS_CONTEXT; int64_t *b = (int64_t *)p - 8; locked -= b[0]; free(b); return OK; }
static status copied(void *to, const void *from, size_t n, void *s) { NEEDS_CONTEXT; after_kernel = 0; memcpy(to, from, n); return known(s) ? OK : INVALID; }
status cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n, void *s) { return copied((void *)to, from, n, s); }
status cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, void *s) { return copied(to, (void *)from, n, s); }
status cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t n, void *s) { return copied((void *)to, (void *)from, n, s); }
status cuStreamCreate(void **s, unsigned f) { NEEDS_CONTEXT; streams++; *s = (void *)0x5; return f == 1 ? OK : INVALID; }
status cuStreamDestroy_v2(void *s) { NEEDS_CONTEXT; streams--; return s ? OK : INVALID; }
status cuStreamSynchronize(void *s) { NEEDS_CONTEXT; MAY_FAIL; return known(s) && !capturing ? OK : INVALID; }
status cuModuleLoadData(void **m, const void *image)
{
    NEEDS_CONTEXT;
    MAY_FAIL;
    const unsigned char *bytes = image;
    int binary = !memcmp(bytes, "\177ELF", 4) && (bytes[18] | bytes[19] << 8) == 190; /* machine code for a GPU: to be asked about only */
    modules++, *m = binary ? (void *)0xe1f : (void *)(intptr_t)atoi((const char *)image + 4);
    return capturing || !(binary || !memcmp(image, "code", 4)) ? 200 : OK;
}
status cuModuleUnload(void *m) { NEEDS_CONTEXT; modules--; return m ? OK : INVALID; }
status cuModuleGetFunction(void **f, void *m, const char *name) { NEEDS_CONTEXT; MAY_FAIL; *f = m; return name[0] ? OK : NOT_FOUND; }
status cuFuncSetAttribute(void *f, int a, int v) { NEEDS_CONTEXT; return f && a == 8 && v <= 227 * 1024 ? OK : INVALID; }
status cuFuncGetAttribute(int *v, int a, void *f) { NEEDS_CONTEXT; *v = a == 4 ? 32 : 0; return f ? OK : INVALID; } /* registers; no local memory */
status cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, void *f, int threads, size_t shared)
{
    NEEDS_CONTEXT;
    int by_memory = (int)(228 * 1024 / (shared + 1024)), by_threads = 2048 / threads;
    *n = by_memory < by_threads ? by_memory : by_threads;
    return f ? OK : INVALID;
}
static status launched(const char *name, void *f, const unsigned *sizes, unsigned shared, void *s, void **p, void **e, int overlapping)
{
    NEEDS_CONTEXT;
    status told = told_to_fail(name);
    if (told)
        broken = capturing;
    if (told || broken)
        return told ? told : CAPTURE_INVALIDATED;
    if (e || !known(s) || (overlapping && !after_kernel))
        return INVALID;
    after_kernel = 1;
    on_launch((int64_t)(intptr_t)f, sizes, shared, (int64_t)(intptr_t)s, p, capturing, overlapping);
    return OK;
}
status cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *s, void **p, void **e)
{
    unsigned sizes[6] = {gx, gy, gz, bx, by, bz};
    return launched(__func__, f, sizes, shared, s, p, e, 0);
}
typedef struct { int id, pad, value, rest[15]; } attribute;
typedef struct { unsigned sizes[6], shared; void *stream; const attribute *attributes; unsigned n; } configuration;
/* Known of attributes is one: programmatic serialization, by which a kernel may overlap with the kernel before it. */
status cuLaunchKernelEx(const configuration *c, void *f, void **p, void **e)
{
    const attribute *a = c->attributes;
    return c->n != 1 || a->id != 6 || a->value != 1 ? INVALID : launched(__func__, f, c->sizes, c->shared, c->stream, p, e, 1);
}
status cuStreamBeginCapture_v2(void *s, int m) { NEEDS_CONTEXT; if (!s || capturing) return CAPTURE_UNSUPPORTED; capturing = 1, broken = after_kernel = 0, mode = m; return OK; }
status cuStreamEndCapture(void *s, void **g)
{
    NEEDS_CONTEXT;
    if (!s || !capturing)
        return INVALID;
    capturing = 0, *g = NULL;
    on_graph(broken ? 0 : ++graphs, 0);
    if (broken)
        return CAPTURE_INVALIDATED;
    *g = (void *)(intptr_t)graphs, recorded++;
    return OK;
}
status cuGraphInstantiateWithFlags(void **e, void *g, unsigned long long f) { NEEDS_CONTEXT; MAY_FAIL; live++; *e = g; return (int)f; }
status cuGraphDestroy(void *g) { NEEDS_CONTEXT; recorded--; return g ? OK : INVALID; }
status cuGraphExecDestroy(void *g) { NEEDS_CONTEXT; live--; return g ? OK : INVALID; }
status cuGraphLaunch(void *g, void *s) { NEEDS_CONTEXT; MAY_FAIL; after_kernel = 0, on_graph((int64_t)(intptr_t)g, 1); return known(s) ? OK : INVALID; }
status cuEventCreate(void **e, unsigned f) { NEEDS_CONTEXT; events++; *e = (void *)0x7; return (int)f; }
status cuEventRecord(void *e, void *s) { NEEDS_CONTEXT; return e && s ? OK : INVALID; }
status cuEventSynchronize(void *e) { NEEDS_CONTEXT; return e ? OK : INVALID; }
status cuEventElapsedTime_v2(float *ms, void *a, void *b) { NEEDS_CONTEXT; *ms = 1.5f; return a && b ? OK : INVALID; }
status cuEventDestroy_v2(void *e) { NEEDS_CONTEXT; events--; return e ? OK : INVALID; }
status cuGetErrorString(status s, const char **text) { *text = s == 201 ? "invalid device context" : s == OUT_OF_MEMORY ? "out of memory" : s == CAPTURE_INVALIDATED ? "capture invalidated" : "some error"; return OK; }

/* The bindings ask for every function of the driver by its name without a version. */
status cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *found)
{
    static const char *suffixes[] = {"_v2", "WithFlags", ""};
    char full[128];
    (void)version, (void)flags;
    *function = NULL;
    for (int i = 0; i < 3 && !*function && strlen(name) < 100; i++) {
        strcpy(full, name);
        strcat(full, suffixes[i]);
        Dl_info own;
        dladdr((void *)cuGetProcAddress_v2, &own);
        void *self = dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD);
        *function = dlsym(self, full);
    }
    if (found)
        *found = *function ? 0 : 1;
    return *function ? OK : NOT_FOUND;
}
