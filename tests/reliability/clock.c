/* A wall clock that jumps: CLOCK_REALTIME, moved by as many seconds as stand in the file that JUMP_FILE names.
   The monotonic clock, by which time is measured, is left alone, as a jump leaves it alone. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = (int)syscall(SYS_clock_gettime, clock, time);
    const char *path = getenv("JUMP_FILE");
    if (failed || clock != CLOCK_REALTIME || !path) return failed;
    long jump = 0;
    FILE *file = fopen(path, "r");
    if (file) {
        if (fscanf(file, "%ld", &jump) != 1) jump = 0;
        fclose(file);
    }
    time->tv_sec += jump;
    return 0;
}
