/* LD_PRELOAD: the clock of a process, shifted by the seconds that the file in STEPPED_CLOCK holds.

   Timeouts and sleeps go by the monotonic clock and stay as they are, as when an administrator or NTP sets the clock of
   a host. Under libfaketime 0.9.10, told to leave the monotonic clock alone, Python's sleeps fail.

   With STEPPED_CLOCK_ALL the monotonic clocks are shifted too: time passes in which the process does nothing. Waits
   until a moment are handed to the kernel by its own clock; one that is under way at a step takes as long as it would. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t shift(void) {
    static const char *path;
    static __thread long read_at = -1;
    static __thread time_t seconds;
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    long tenths = now.tv_sec * 10 + now.tv_nsec / 100000000;
    if (read_at == tenths) return seconds;
    read_at = tenths;
    if (!path) path = getenv("STEPPED_CLOCK");
    FILE *file = path ? fopen(path, "re") : NULL;
    long found;
    if (file) {
        if (fscanf(file, "%ld", &found) == 1) seconds = found;
        fclose(file);
    }
    return seconds;
}

static int is_shifted(clockid_t clock) {
    static int all = -1;
    if (all < 0) all = getenv("STEPPED_CLOCK_ALL") != NULL;
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) return 1;
    return all && (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE || clock == CLOCK_MONOTONIC_RAW ||
                   clock == CLOCK_BOOTTIME);
}

static struct timespec by_kernel(clockid_t clock, const struct timespec *until) {
    struct timespec moment = *until;
    if (is_shifted(clock)) moment.tv_sec -= shift();
    return moment;
}

int clock_gettime(clockid_t clock, struct timespec *told) {
    int status = (int)syscall(SYS_clock_gettime, clock, told);
    if (status == 0 && is_shifted(clock)) told->tv_sec += shift();
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

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left) {
    struct timespec moment = flags & TIMER_ABSTIME ? by_kernel(clock, until) : *until;
    return syscall(SYS_clock_nanosleep, clock, flags, &moment, left) == 0 ? 0 : errno;
}

int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *until) {
    static int (*next)(sem_t *, clockid_t, const struct timespec *);
    if (!next) next = dlsym(RTLD_NEXT, "sem_clockwait");
    struct timespec moment = by_kernel(clock, until);
    return next(semaphore, clock, &moment);
}

int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock,
                           const struct timespec *until) {
    static int (*next)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
    if (!next) next = dlsym(RTLD_NEXT, "pthread_cond_clockwait");
    struct timespec moment = by_kernel(clock, until);
    return next(condition, mutex, clock, &moment);
}
