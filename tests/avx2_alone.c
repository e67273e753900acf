/* Preloaded into a program, hides from it, and from what it starts, the features of the processor beyond AVX2: AVX512,
   VNNI and AMX. Linux on Intel traps the instruction that asks for them (`cpuid_fault` in /proc/cpuinfo). */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

typedef int (*Sigaction)(int, const struct sigaction *, struct sigaction *);

static void trap(int signal_number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *instruction = (const unsigned char *)registers[REG_RIP];
    if (instruction[0] != 0x0f || instruction[1] != 0xa2) abort(); /* a true fault, no cpuid */
    uint32_t a = registers[REG_RAX], c = registers[REG_RCX], leaf = a, subleaf = c, b, d;
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
    if (leaf == 7 && subleaf == 0) {
        b &= ~0xdc230000u; /* AVX512: F, DQ, IFMA, PF, ER, CD, BW, VL */
        c &= ~0x00005842u; /* AVX512: VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
        d &= ~0x03c0010cu; /* AVX512: 4VNNIW, 4FMAPS, VP2INTERSECT, FP16; AMX */
    } else if (leaf == 7 && subleaf == 1) {
        a &= ~0x00a00030u; /* AVX-VNNI, AVX512-BF16, AMX-FP16, AVX-IFMA */
        d = 0;             /* AVX-VNNI of other widths, AVX10 */
    }
    registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void start(void) {
    struct sigaction action = {.sa_sigaction = trap, .sa_flags = SA_SIGINFO | SA_NODEFER};
    ((Sigaction)dlsym(RTLD_NEXT, "sigaction"))(SIGSEGV, &action, NULL);
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0)) perror("cpuid cannot be trapped");
}

/* Python's faulthandler and compilers would take the trap's place. */
int sigaction(int signal_number, const struct sigaction *action, struct sigaction *old) {
    if (signal_number == SIGSEGV) action = NULL;
    return ((Sigaction)dlsym(RTLD_NEXT, "sigaction"))(signal_number, action, old);
}

sighandler_t signal(int signal_number, sighandler_t handler) {
    if (signal_number == SIGSEGV) return SIG_DFL;
    return ((sighandler_t(*)(int, sighandler_t))dlsym(RTLD_NEXT, "signal"))(signal_number, handler);
}
