/*
 * The program that the init carries out: one block of memory, made by pyrunc/plan/program.py.
 *
 *     header | operations | slots | strings | room for times (only with TRACE)
 *
 * A slot is a descriptor with a number of its own: the first ones are filled by the parent,
 * others by operations. Strings end with NUL, blobs have a length. Everything is checked
 * before the first operation is carried out (see check() in init.c).
 */
#ifndef PYRUNC_INIT_PROGRAM_H
#define PYRUNC_INIT_PROGRAM_H

#include "sys.h"

#define MAGIC 0x7079696eU /* "pyin" */
#define VERSION 1U
enum { TRACE = 1 };
enum { ARGUMENTS = 5, MOST_SLOTS = 1 << 16, MOST_OPERATIONS = 1 << 20 };

struct header {
    uint32_t magic, version, flags;
    uint32_t operations; /* how many */
    uint32_t slots;      /* how many */
    uint32_t strings;    /* bytes */
};

struct operation {
    uint32_t code, tag; /* the tag goes into the report of a failure */
    uint64_t argument[ARGUMENTS];
};

/* An argument that is a blob: the offset in the low half, the length in the high half. */
#define BLOB_OFFSET(argument) ((uint32_t)(argument))
#define BLOB_LENGTH(argument) ((uint32_t)((argument) >> 32))

struct state; /* the state of a running program, in init.c */

/* An operation returns 0, or a negative error number; detail says more about a failure, see each operation. */
typedef long (*doer)(struct state *state, const uint64_t *argument);

struct state {
    struct header *header;
    struct operation *operations;
    int32_t *slots;
    char *strings;
    uint64_t *times; /* begin and end of each operation; NULL without TRACE */
    uint64_t detail;
    const char *said; /* more about a failure, at most MOST_SAID bytes */
    uint32_t said_size;
    int to_pipe; /* slot 0 is a fifo: there are no answers */
    uint32_t sent; /* operations whose times the parent has */
    int timing;
    int cwd_pending;
    uint32_t current;    /* number of the operation that is carried out */
    uint32_t candidate;  /* which one FIND found, from 1 on */
    const char *program; /* its path */
    char home[4096];     /* "HOME=...", empty for none */
};

static inline const char *string_at(struct state *state, uint64_t argument)
{
    return state->strings + argument;
}

static inline void *blob_at(struct state *state, uint64_t argument)
{
    return state->strings + BLOB_OFFSET(argument);
}

/* Kinds of messages; pyrunc/apply/protocol.py draws the conversation. Slot 0 is the socket. */
enum { SOCKET = 0 };
enum { MOST_SAID = 2 * 8192 + 8 };
long fork_process(void);
uint64_t now(void);
long send_message(struct state *state, const void *data, size_t size, int fd);
long read_whole(int fd, void *buffer, size_t size);
long write_whole(int fd, const void *data, size_t size);
void send_times(struct state *state);
long onto_stdio(int fd, int to);
void take_back(struct state *state); /* live.c: undo what was done, if the program asks for it */
size_t write_number(char *to, uint64_t number); /* up to 20 digits, no NUL; returns how many */

#define OPERATION(name, signature) long do_##name(struct state *state, const uint64_t *argument);
#include "operations.def"
#undef OPERATION

#endif
