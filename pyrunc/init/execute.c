/*
 * The program of a process: which file it is, and execve(2).
 */
#include "program.h"

/* Low half: the error of the last candidate. High half: 1 + its index. */
enum { NOT_THERE = 1, DIRECTORY, NO_MODE, NO_PERMISSION };

static int look(const char *path, long *error)
{
    struct stat found;
    long result = SYS4(newfstatat, AT_FDCWD, path, &found, 0);
    if (result < 0) {
        *error = result;
        return NOT_THERE;
    }
    *error = -EACCES;
    if ((found.st_mode & S_IFMT) == S_IFDIR)
        return DIRECTORY;
    if ((found.st_mode & S_IFMT) != S_IFREG || !(found.st_mode & 0111))
        return NO_MODE;
    if (SYS4(faccessat2, AT_FDCWD, path, X_OK, AT_EACCESS) == 0)
        return 0;
    /* A seccomp filter may refuse faccessat2(2) (Linux 5.8): then execve gives the error. */
    return SYS4(faccessat2, AT_FDCWD, "/", F_OK, AT_EACCESS) == 0 ? NO_PERMISSION : 0;
}

/* Find the first candidate that can be executed, or report one that exists but cannot be executed. */
long do_FIND(struct state *state, const uint64_t *argument)
{
    const uint32_t *offset = blob_at(state, argument[0]);
    uint32_t count = BLOB_LENGTH(argument[0]) / 4;
    long error = -ENOENT, told = -ENOENT;
    for (uint32_t i = 0; i < count; i++) {
        int problem = look(state->strings + offset[i], &error);
        if (!problem) {
            state->program = state->strings + offset[i];
            state->candidate = i + 1;
            return 0;
        }
        if (problem != NOT_THERE || count == 1) {
            state->detail = (uint64_t)(i + 1) << 32 | (uint64_t)problem;
            told = error;
        }
    }
    return told;
}

/* The arrays for execve(2), in memory of their own, which is limited by the program's size. */
long do_EXEC(struct state *state, const uint64_t *argument)
{
    uint32_t words = BLOB_LENGTH(argument[0]) / 4, variables = BLOB_LENGTH(argument[1]) / 4;
    size_t size = ((size_t)words + variables + 3) * sizeof(char *);
    long place = SYS6(mmap, 0, size, 3 /* PROT_READ | PROT_WRITE */, 0x22 /* MAP_PRIVATE | MAP_ANONYMOUS */, -1, 0);
    if (is_error(place))
        return place;
    const char **argv = (const char **)place, **envp = argv + words + 1;
    const uint32_t *word = blob_at(state, argument[0]), *variable = blob_at(state, argument[1]);
    for (uint32_t i = 0; i < words; i++)
        argv[i] = state->strings + word[i];
    for (uint32_t i = 0; i < variables; i++)
        envp[i] = state->strings + variable[i];
    if (state->home[0])
        envp[variables] = state->home;
    if (!state->program)
        return -ENOENT;
    state->detail = state->candidate;
    send_times(state);
    return SYS3(execve, state->program, argv, envp);
}
