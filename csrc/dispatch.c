/* dispatch.c: the instruction sets, and the loop over steps.
 *
 * This file is compiled for the machine's baseline alone.
 */
#define _GNU_SOURCE
#define DTD_ISA baseline
#include "base/kernel.h"
#include "base/stack.h"
#include "verify.h"

#ifdef DTD_X86_64
#include <cpuid.h>
#endif
#ifdef _WIN32
#include <windows.h>
#elif defined(DTD_BF16)
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern const dtd_kernel_table dtd_kernels_baseline_float, dtd_kernels_baseline_double;

static int usable_baseline(void) { return 1; }

#ifdef DTD_X86_64
extern const dtd_kernel_table dtd_kernels_avx2_float, dtd_kernels_avx2_double, dtd_kernels_avx512_float,
    dtd_kernels_avx512_double;

/* Whether the CPU has FMA and the features of CPUID's leaf 7, and the system keeps the registers of XCR0's bits. */
static int usable(unsigned features, unsigned registers)
{
    enum { FMA = 1 << 12, OSXSAVE = 1 << 27 };
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & FMA) || !(c & OSXSAVE) || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    unsigned kept;
    __asm__("xgetbv" : "=a"(kept), "=d"(d) : "c"(0));
    return (kept & registers) == registers && (b & features) == features;
}

static int usable_avx2(void)
{
    enum { BMI = 1 << 3, AVX2 = 1 << 5, XMM_YMM = 0x6 };
    return usable(BMI | AVX2, XMM_YMM);
}

static int usable_avx512(void)
{
    const unsigned f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31;
    enum { XMM_YMM_K_ZMM = 0xe6 };
    return usable_avx2() && usable(f | dq | bw | vl, XMM_YMM_K_ZMM);
}
#endif

#ifdef DTD_BF16
extern const dtd_kernel_table dtd_kernels_avx512bf16_float, dtd_kernels_amx_float;

static int usable_avx512bf16(void)
{
    enum { AVX512_BF16 = 1 << 5 };
    unsigned a, b, c, d;
    return usable_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & AVX512_BF16;
}

/* Whether dot products of bfloat16 take longer than multiply-adds do: Intel's run at a quarter of their rate, AMD's at
 * the same. */
static int slow_dots(void)
{
    unsigned a, b, c, d;
    return usable_avx512bf16() && __get_cpuid(0, &a, &b, &c, &d) && b == signature_INTEL_ebx;
}

/* Whether the system keeps the registers of tiles for this process. */
static int tiles_kept(void)
{
    enum { TILE_DATA = 18 };
#ifdef _WIN32
    typedef int(WINAPI * request)(DWORD64);
    const HMODULE kernel = GetModuleHandleA("kernel32.dll");
    const request enable = (request)(void *)GetProcAddress(kernel, "EnableProcessOptionalXStateFeatures");
    return enable && enable(1 << TILE_DATA); /* before Windows 11 there is none */
#else
    enum { REQUEST_STATE = 0x1023 };
    return !syscall(SYS_arch_prctl, REQUEST_STATE, TILE_DATA);
#endif
}

/* Whether the CPU multiplies tiles of bfloat16, and this process may. */
static int usable_amx(void)
{
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24 };
    unsigned a, b, c, d;
    int tiles = __get_cpuid_count(7, 0, &a, &b, &c, &d) && d & AMX_BF16 && d & AMX_TILE;
    return tiles && usable_avx512bf16() && tiles_kept();
}
#endif

static const struct {
    const char *name;
    const dtd_kernel_table *kernels[DTD_N_REALS];
    int (*usable)(void);
    int (*preferred)(void); /* where it is the fastest, if usable; NULL: where no later one is */
    int bfloat16;
    int64_t scratch;
} ISAS[] = {
    {"baseline", {&dtd_kernels_baseline_float, &dtd_kernels_baseline_double}, usable_baseline, NULL, 0, 0},
#ifdef DTD_X86_64
    {"avx2", {&dtd_kernels_avx2_float, &dtd_kernels_avx2_double}, usable_avx2, NULL, 0, 0},
    {"avx512", {&dtd_kernels_avx512_float, &dtd_kernels_avx512_double}, usable_avx512, NULL, 0, 0},
#endif
#ifdef DTD_BF16
    {"avx512bf16",
     {&dtd_kernels_avx512bf16_float, &dtd_kernels_avx512_double},
     usable_avx512bf16,
     NULL,
     1,
     DTD_SCRATCH_BYTES},
    /* a bfloat16 is a float, and multiply-adds of floats are the fastest products: the kernels of avx512 */
    {"avx512f32", {&dtd_kernels_avx512_float, &dtd_kernels_avx512_double}, usable_avx512, slow_dots, 1, 0},
    {"amx", {&dtd_kernels_amx_float, &dtd_kernels_avx512_double}, usable_amx, NULL, 1, DTD_SCRATCH_BYTES},
#endif
};

int dtd_isa_count(void) { return (int)(sizeof ISAS / sizeof *ISAS); }
const char *dtd_isa_name(int isa) { return isa >= 0 && isa < dtd_isa_count() ? ISAS[isa].name : NULL; }
int64_t dtd_isa_scratch(int isa) { return isa >= 0 && isa < dtd_isa_count() ? ISAS[isa].scratch : 0; }
int dtd_isa_bfloat16(int isa) { return isa >= 0 && isa < dtd_isa_count() && ISAS[isa].bfloat16; }

int dtd_isa_usable(int isa)
{
    /* 1: no, 2: yes; a virtual machine may take 10 us to answer, and every run asks. Threads that ask at once find the
     * same. */
    static _Atomic int known[sizeof ISAS / sizeof *ISAS];
    if (isa < 0 || isa >= dtd_isa_count())
        return 0;
    if (!known[isa])
        known[isa] = ISAS[isa].usable() ? 2 : 1;
    return known[isa] == 2;
}

int dtd_isa_fastest(void)
{
    int isa = dtd_isa_count() - 1;
    while (!dtd_isa_usable(isa) || (ISAS[isa].preferred && !ISAS[isa].preferred()))
        isa--;
    return isa;
}

const char *dtd_compiler(void)
{
#ifdef __clang__
    return "clang " __clang_version__;
#elif defined(__GNUC__)
    return "gcc " __VERSION__;
#endif
}

int dtd_step_size(void) { return (int)sizeof(dtd_step); }

typedef struct {
    const dtd_kernel_table *kernels;
    const dtd_step *steps;
    int64_t first, last;
    void *const *bases;
    const dtd_pieces *pieces;
} pieces_job;

/* Of a view of n samples (or n·t), the first m (or m·t). */
static void limit_samples(dtd_view *v, int64_t n, int64_t m)
{
    if (present(v) && v->shape[AXIS_N] >= n)
        v->shape[AXIS_N] = v->shape[AXIS_N] / n * m;
}

static void run_pieces(void *context, int64_t first, int64_t last)
{
    const pieces_job *job = context;
    const dtd_pieces *pieces = job->pieces;
    for (int64_t piece = first; piece < last; piece++) {
        void *const *bases = job->bases + piece * pieces->n_bases;
        const int64_t samples = piece + 1 < pieces->count ? pieces->samples : pieces->last_samples;
        for (int64_t i = job->first; i < job->last; i++) {
            const dtd_step *s = &job->steps[i];
            const int more = s->n_steps;
            dtd_step some[1 + DTD_MOST_SLICED];
            if (samples < pieces->samples) {
                for (int k = 0; k <= more; k++) {
                    some[k] = s[k];
                    dtd_view *const views[] = {DTD_VIEWS(&some[k])};
                    for (size_t v = 0; v < sizeof views / sizeof *views; v++)
                        limit_samples(views[v], pieces->samples, samples);
                }
                s = some;
            }
            job->kernels->of[s->op].run(s, bases, 1);
            i += more;
        }
    }
}

typedef struct {
    pieces_job job;
    int n_threads;
} run_job;

static void run_steps(void *context)
{
    const run_job *run = context;
    const pieces_job *job = &run->job;
    if (job->pieces)
        dtd_parallel(run->n_threads, job->pieces->count, 1, run_pieces, (void *)job);
    else
        for (int64_t i = job->first; i < job->last; i += 1 + job->steps[i].n_steps)
            job->kernels->of[job->steps[i].op].run(&job->steps[i], job->bases, run->n_threads);
}

/* On a thread that has started none yet. */
static void run_aside(void *context)
{
    run_job *run = context;
    run->n_threads = dtd_secure_threads(run->n_threads);
    run_steps(run);
}

const char *dtd_run(int isa, int real, const dtd_step *steps, int64_t first, int64_t last, void *const *bases,
                    int n_threads, const dtd_pieces *pieces)
{
    if (!dtd_isa_usable(isa))
        return "this CPU does not have the instruction set asked for";
    if (real < 0 || real >= DTD_N_REALS)
        return "unknown type of numbers";
    for (int64_t i = first; i < last; i++) {
        const char *message = dtd_refusal(&steps[i], ISAS[isa].bfloat16);
        if (message)
            return message;
        if (steps[i].n_steps >= last - i)
            return "steps of a SLICED are not within the run";
        for (int k = 1; k <= steps[i].n_steps; k++)
            if (steps[i + k].n_steps)
                return "a SLICED stands within another";
    }
    run_job run = {{ISAS[isa].kernels[real], steps, first, last, bases, pieces}, n_threads};
    if (dtd_stack_suffices())
        run_steps(&run);
    else if (dtd_run_aside(run_aside, &run))
        return "can't start new thread, and this one has too little stack for kernels (see threading.stack_size)";
    return NULL;
}

const char *dtd_body(int isa, int real, const dtd_step *step, void *const *bases, int choice)
{
    if (!dtd_isa_usable(isa) || real < 0 || real >= DTD_N_REALS || dtd_refusal(step, ISAS[isa].bfloat16))
        return NULL;
    const dtd_body_name name = ISAS[isa].kernels[real]->of[step->op].body;
    return name ? name(step, bases, choice) : NULL;
}
