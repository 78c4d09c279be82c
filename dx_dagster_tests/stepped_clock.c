/* LD_PRELOAD: the wall clock of a process, shifted by the seconds that the file in STEPPED_CLOCK holds.

   Timeouts and sleeps go by the monotonic clock and stay as they are, as when an administrator or NTP sets the clock of
   a host. Under libfaketime 0.9.10, told to leave the monotonic clock alone, Python's sleeps fail. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t shift(void) {
    static const char *path;
    static __thread time_t read_at = -1, seconds;
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    if (read_at == now.tv_sec) return seconds;
    read_at = now.tv_sec;
    if (!path) path = getenv("STEPPED_CLOCK");
    FILE *file = path ? fopen(path, "re") : NULL;
    long found;
    if (file) {
        if (fscanf(file, "%ld", &found) == 1) seconds = found;
        fclose(file);
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *told) {
    int status = (int)syscall(SYS_clock_gettime, clock, told);
    if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) told->tv_sec += shift();
    return status;
}

int gettimeofday(struct timeval *restrict told, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    told->tv_sec = now.tv_sec;
    told->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *told) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (told) *told = now.tv_sec;
    return now.tv_sec;
}
