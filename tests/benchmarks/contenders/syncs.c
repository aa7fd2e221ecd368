/* Counts the calls of fsync and fdatasync of a process into which it is preloaded. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>

static atomic_long syncs;

long benchmark_syncs(void) { return atomic_load(&syncs); }

int fsync(int descriptor) {
    atomic_fetch_add(&syncs, 1);
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(descriptor);
}

int fdatasync(int descriptor) {
    atomic_fetch_add(&syncs, 1);
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(descriptor);
}
