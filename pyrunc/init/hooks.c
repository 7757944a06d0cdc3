/*
 * One hook inside the container (startContainer): a program of its root file system, which gets the container's
 * state on its stdin and has to end with 0 in time.
 */
#include "program.h"

enum { KEPT = 8192, POLLIN = 1, POLLOUT = 4, WNOHANG = 1, SIGKILL = 9, SIGPIPE = 13, GLANCE = 10000000 };
/* The kind of failure, in the lowest byte of the detail; then exit status or signal; above that the milliseconds. */
enum { NOT_STARTED = 1, EXITED, SIGNALLED, LATE, INTERNAL };

struct poll {
    int fd;
    short events, found;
};
/* Nanoseconds, 0 for no limit; whether HOME is set; whether it runs in our working directory. */
struct how {
    uint64_t limit, home, here;
};

struct hook {
    long pid;
    int in, out[2]; /* our ends: its stdin; its stdout and stderr */
    const char *input;
    size_t left;
    char kept[2][KEPT];
    uint32_t size[2];
};

static void close_if(int *fd)
{
    if (*fd >= 0)
        SYS1(close, *fd);
    *fd = -1;
}

/* In the child: the pipes become stdio, then the program. The error number of a failure goes back. */
static __attribute__((noreturn)) void become(struct state *state, const uint64_t *argument, int *theirs, int error)
{
    const uint32_t *word = blob_at(state, argument[0]), *variable = blob_at(state, argument[1]);
    uint32_t words = BLOB_LENGTH(argument[0]) / 4, variables = BLOB_LENGTH(argument[1]) / 4;
    uint64_t nothing[4] = {0};
    struct how how;
    memcpy(&how, blob_at(state, argument[3]), sizeof(how));
    SYS4(sigaction, SIGPIPE, nothing, 0, 8);
    SYS2(setpgid, 0, 0);
    long result = how.here ? 0 : SYS1(chdir, "/");
    for (int fd = 0; fd < 3; fd++) /* if stdio is closed, the pipes may have its numbers, so move them away first */
        theirs[fd] = (int)SYS3(fcntl, theirs[fd], F_DUPFD_CLOEXEC, 3);
    error = (int)SYS3(fcntl, error, F_DUPFD_CLOEXEC, 3);
    for (int fd = 0; fd < 3 && result >= 0; fd++)
        result = onto_stdio(theirs[fd], fd);
    /* A hook gets only three descriptors, not those for the program. Before Linux 5.11 it gets these, too. */
    SYS3(close_range, 3, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */);
    size_t size = ((size_t)words + variables + 2) * sizeof(char *);
    long place = SYS6(mmap, 0, size, 3, 0x22, -1, 0);
    if (result >= 0 && is_error(place))
        result = place;
    if (result >= 0) {
        const char **argv = (const char **)place, **envp = argv + words;
        for (uint32_t i = 1; i < words; i++)
            argv[i - 1] = state->strings + word[i];
        for (uint32_t i = 0; i < variables; i++)
            envp[i] = state->strings + variable[i];
        if (how.home && state->home[0])
            envp[variables] = state->home;
        result = SYS3(execve, state->strings + word[0], argv, envp);
    }
    int32_t number = (int32_t)-result;
    SYS3(write, error, &number, sizeof(number));
    for (;;)
        SYS1(exit_group, 127);
}

/* Read what the hook has written, and keep the end of it. */
static int drain(struct hook *hook, int which)
{
    char buffer[4096];
    if (hook->out[which] < 0)
        return 0;
    long got = SYS3(read, hook->out[which], buffer, sizeof(buffer));
    if (got == -EAGAIN || got == -EINTR)
        return 0;
    if (got <= 0) {
        close_if(&hook->out[which]);
        return 0;
    }
    uint32_t room = KEPT - hook->size[which];
    if ((uint32_t)got > room) {
        uint32_t gone = (uint32_t)got - room;
        for (uint32_t i = gone; i < hook->size[which]; i++)
            hook->kept[which][i - gone] = hook->kept[which][i];
        hook->size[which] -= gone;
    }
    memcpy(hook->kept[which] + hook->size[which], buffer, (size_t)got);
    hook->size[which] += (uint32_t)got;
    return 1;
}

static void feed(struct hook *hook)
{
    long sent = SYS3(write, hook->in, hook->input, hook->left);
    if (sent == -EAGAIN || sent == -EINTR)
        return;
    if (sent < 0) /* EPIPE: it does not read its stdin */
        sent = (long)hook->left;
    hook->input += sent;
    hook->left -= (size_t)sent;
    if (!hook->left)
        close_if(&hook->in);
}

/* Wait until it ends, or until its time is over (status -1). Do not wait for processes that it leaves in the
 * background, even if they keep its stdout open. */
static long serve(struct hook *hook, uint64_t end, int *status)
{
    for (;;) {
        long ended = SYS4(wait4, hook->pid, status, WNOHANG, 0);
        if (ended == hook->pid) {
            hook->pid = 0;
            return 0;
        }
        if (ended < 0 && ended != -EINTR)
            return ended;
        if (end && now() >= end) {
            *status = -1;
            return 0;
        }
        struct poll polls[3] = {{hook->in, POLLOUT, 0}, {hook->out[0], POLLIN, 0}, {hook->out[1], POLLIN, 0}};
        struct timespec glance = {0, GLANCE};
        if (SYS5(ppoll, polls, 3, &glance, 0, 8) < 0) /* a seccomp filter may refuse it: then do not wait here */
            polls[0].found = polls[1].found = polls[2].found = 1;
        if (polls[0].found && hook->in >= 0)
            feed(hook);
        for (int i = 0; i < 2; i++)
            if (polls[i + 1].found)
                drain(hook, i);
    }
}

static long start_hook(struct state *state, const uint64_t *argument, struct hook *hook, int *error)
{
    int pipes[4][2];
    for (int i = 0; i < 4; i++) {
        long result = SYS2(pipe2, pipes[i], O_CLOEXEC);
        if (result < 0)
            return result;
    }
    int theirs[3] = {pipes[0][0], pipes[1][1], pipes[2][1]};
    hook->in = pipes[0][1];
    hook->out[0] = pipes[1][0];
    hook->out[1] = pipes[2][0];
    for (int i = 0; i < 3; i++)
        SYS3(fcntl, i ? hook->out[i - 1] : hook->in, 4 /* F_SETFL */, O_NONBLOCK);
    hook->pid = fork_process();
    if (hook->pid == 0)
        become(state, argument, theirs, pipes[3][1]);
    for (int i = 0; i < 3; i++)
        SYS1(close, theirs[i]);
    SYS1(close, pipes[3][1]);
    *error = pipes[3][0];
    return hook->pid < 0 ? hook->pid : 0;
}

/* The state: its two halves, and between them our pid in this pid namespace. */
static long make_input(struct state *state, uint64_t argument, struct hook *hook)
{
    const uint32_t *part = blob_at(state, argument);
    if (BLOB_LENGTH(argument) != 8)
        return -EINVAL;
    const char *before = state->strings + part[0], *after = state->strings + part[1];
    size_t first = length_of(before), last = length_of(after);
    long place = SYS6(mmap, 0, first + last + 32, 3, 0x22, -1, 0);
    if (is_error(place))
        return place;
    char *text = (char *)place;
    memcpy(text, before, first);
    size_t size = first + write_number(text + first, (uint64_t)SYS0(getpid));
    memcpy(text + size, after, last);
    hook->input = text;
    hook->left = size + last;
    return 0;
}

static void tell(struct state *state, const struct hook *hook)
{
    static char said[MOST_SAID];
    size_t at = 0;
    for (int i = 0; i < 2; i++) {
        memcpy(said + at, &hook->size[i], 4);
        memcpy(said + at + 4, hook->kept[i], hook->size[i]);
        at += 4 + hook->size[i];
    }
    state->said = said;
    state->said_size = (uint32_t)at;
}

long do_HOOK(struct state *state, const uint64_t *argument)
{
    static struct hook hook;
    uint64_t ignore[4] = {1 /* SIG_IGN */}, nothing[4] = {0}, limit = 0, began = 0;
    int error = -1, number = 0;
    memset(&hook, 0, sizeof(hook));
    hook.in = hook.out[0] = hook.out[1] = -1;
    state->detail = INTERNAL;
    if (BLOB_LENGTH(argument[0]) < 8 || BLOB_LENGTH(argument[3]) != sizeof(struct how))
        return -EINVAL;
    memcpy(&limit, blob_at(state, argument[3]), sizeof(limit));
    if (limit) /* only then, because a seccomp filter may kill a process for clock_gettime(2) */
        began = now();
    long result = make_input(state, argument[2], &hook);
    SYS4(sigaction, SIGPIPE, ignore, 0, 8);
    if (result == 0)
        result = start_hook(state, argument, &hook, &error);
    if (result == 0 && read_whole(error, &number, sizeof(number)) == (long)sizeof(number)) {
        state->detail = NOT_STARTED;
        result = -number;
    }
    int status = 0;
    if (result == 0) {
        result = serve(&hook, limit ? began + limit : 0, &status);
        for (int i = 0; i < 2; i++) /* do not wait for the end of file: a background process may keep the pipe open */
            for (int round = 0; round < 256 && drain(&hook, i); round++)
                ;
    }
    if (hook.pid > 0) { /* kill it with its process group */
        SYS2(kill, -hook.pid, SIGKILL);
        SYS2(kill, hook.pid, SIGKILL);
        SYS4(wait4, hook.pid, 0, 0, 0);
    }
    close_if(&hook.in);
    close_if(&hook.out[0]);
    close_if(&hook.out[1]);
    close_if(&error);
    SYS4(sigaction, SIGPIPE, nothing, 0, 8);
    uint64_t took = limit ? ((now() - began) / 1000000) << 32 : 0;
    if (result < 0) {
        state->detail |= took;
        return result;
    }
    if (status == 0)
        return 0;
    tell(state, &hook);
    if (status < 0)
        state->detail = took | LATE;
    else
        state->detail = took | ((status & 0x7f) ? SIGNALLED | (uint64_t)(status & 0x7f) << 8
                                                : EXITED | (uint64_t)(status >> 8 & 0xff) << 8);
    return -EIO;
}
