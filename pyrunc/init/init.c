/*
 * The init program: the only code of pyrunc that runs in a container.
 *
 * The parent starts it from a sealed memory file with one word, the number of a descriptor
 * that holds a program (program.h). It checks the whole program, carries out its operations
 * one after the other, and executes the container's program with the last one. At the first
 * failure it tells the parent which operation failed, with which error number and detail,
 * and ends; the parent makes the error message. It decides nothing, and the size of the
 * program limits how much memory it allocates.
 */
#include "program.h"

static struct state state;

/* ---- functions that the compiler may call ------------------------------------------------ */

void *memcpy(void *to, const void *from, size_t size)
{
    unsigned char *out = to;
    const unsigned char *in = from;
    while (size--)
        *out++ = *in++;
    return to;
}

void *memset(void *to, int value, size_t size)
{
    unsigned char *out = to;
    while (size--)
        *out++ = (unsigned char)value;
    return to;
}

/* ---- messages to the parent -------------------------------------------------------------- */

enum { SOL_SOCKET = 1, SCM_RIGHTS = 1, MSG_NOSIGNAL = 0x4000 };

/* It uses write(2) and not send(2), which a seccomp filter may refuse; a descriptor needs sendmsg(2). */
long send_message(struct state *self, const void *data, size_t size, int fd)
{
    int sock = self->slots[SOCKET];
    long sent;
    struct iovec part = {(void *)data, size};
    struct one_descriptor rights = {sizeof(size_t) + 3 * sizeof(int), SOL_SOCKET, SCM_RIGHTS, fd, 0};
    struct msghdr message = {.vector = &part, .count = 1, .control = &rights, .control_length = sizeof(rights)};
    do {
        sent = fd < 0 ? SYS3(write, sock, data, size) : SYS3(sendmsg, sock, &message, MSG_NOSIGNAL);
    } while (sent == -EINTR);
    return sent < 0 ? sent : 0;
}

enum { TIMES_AT_ONCE = 2000 }; /* 24 bytes each: below the 64 KiB that the parent reads */

void send_times(struct state *self)
{
    static struct {
        char kind;
        char data[TIMES_AT_ONCE * 24];
    } message; /* not initialized, because initial values would take 48 KB of the file */
    size_t filled = 0;
    message.kind = 'w';
    for (; self->times && !self->to_pipe && self->sent < self->header->operations; self->sent++) {
        uint64_t *time = self->times + 2 * (size_t)self->sent;
        if (!time[1])
            break;
        uint64_t entry[3] = {self->sent, time[0], time[1]};
        memcpy(message.data + filled, entry, sizeof(entry));
        filled += sizeof(entry);
        if (filled == sizeof(message.data)) {
            send_message(self, &message, 1 + filled, -1);
            filled = 0;
        }
    }
    if (filled)
        send_message(self, &message, 1 + filled, -1);
}

enum {
#define OPERATION(name, signature) name##_CODE,
#include "operations.def"
#undef OPERATION
    PATIENCE = 5, /* seconds; the parent needs microseconds */
};

/* Report a failure, and end after the parent has looked at this process: then it closes its end of the socket. */
static __attribute__((noreturn)) void fail(uint32_t operation, long error, uint64_t detail)
{
    static struct __attribute__((packed)) {
        char kind;
        uint32_t operation, code, tag;
        int32_t error;
        uint64_t detail;
        char said[MOST_SAID];
    } report;
    const struct operation *failed = state.operations + operation;
    uint32_t more = state.said_size < MOST_SAID ? state.said_size : MOST_SAID;
    report.kind = 'X';
    report.operation = operation;
    report.code = failed->code;
    report.tag = failed->tag;
    report.error = (int32_t)-error;
    report.detail = detail;
    memcpy(report.said, state.said, more);
    char answer;
    take_back(&state);
    send_times(&state);
    long sent = send_message(&state, &report, sizeof(report) - MOST_SAID + more, -1);
    if (sent == 0 && !state.to_pipe)
        while (SYS3(read, state.slots[SOCKET], &answer, 1) == -EINTR)
            ;
    /* `start` looks for the reason in this process's root, and then kills the process. */
    struct timespec patience = {PATIENCE, 0};
    if (sent == 0 && state.to_pipe && failed->code == EXEC_CODE)
        SYS5(ppoll, NULL, 0, &patience, NULL, 8);
    for (;;)
        SYS1(exit_group, 1);
}

/* ---- files ------------------------------------------------------------------------------ */

/* Read until the end or until the buffer is full; returns how much. */
long read_whole(int fd, void *buffer, size_t size)
{
    size_t have = 0;
    while (have < size) {
        long got = SYS3(read, fd, (char *)buffer + have, size - have);
        if (got == -EINTR)
            continue;
        if (got < 0)
            return got;
        if (got == 0)
            break;
        have += (size_t)got;
    }
    return (long)have;
}

size_t write_number(char *to, uint64_t number)
{
    char digits[20];
    size_t count = 0, size = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while (number /= 10);
    while (count)
        to[size++] = digits[--count];
    return size;
}

long write_whole(int fd, const void *data, size_t size)
{
    long sent;
    do
        sent = SYS3(write, fd, data, size);
    while (sent == -EINTR);
    return sent < 0 ? sent : (size_t)sent == size ? 0 : -EIO;
}

/* Make a descriptor one of stdio. It may have that number already: if stdio was closed at the start, new descriptors
 * get these numbers. dup3(2) refuses equal numbers; then only clear close-on-exec. */
long onto_stdio(int fd, int to)
{
    return fd == to ? SYS3(fcntl, fd, F_SETFD, 0) : SYS3(dup3, fd, to, 0);
}

/* ---- the table -------------------------------------------------------------------------- */

struct entry {
    doer perform;
    const char *signature;
};

static const struct entry TABLE[] = {
#define OPERATION(name, signature) {do_##name, signature},
#include "operations.def"
#undef OPERATION
};
enum { KINDS = sizeof(TABLE) / sizeof(*TABLE) };

/* ---- checking --------------------------------------------------------------------------- */

static int blob_fits(const struct header *header, uint64_t argument)
{
    return (uint64_t)BLOB_OFFSET(argument) + BLOB_LENGTH(argument) <= header->strings;
}

/* A list's offsets are read in place, so they must be aligned; each must be inside the table. */
static int list_fits(const struct header *header, const char *strings, uint64_t argument)
{
    if (!blob_fits(header, argument) || BLOB_OFFSET(argument) % 4 || BLOB_LENGTH(argument) % 4)
        return 0;
    const uint32_t *offset = (const uint32_t *)(strings + BLOB_OFFSET(argument));
    for (uint32_t i = 0; i < BLOB_LENGTH(argument) / 4; i++)
        if (offset[i] >= header->strings)
            return 0;
    return 1;
}

static int argument_fits(const struct header *header, const char *strings, char kind, uint64_t argument)
{
    switch (kind) {
    case 'n':
        return 1;
    case 's':
        return argument < header->strings;
    case 'i':
    case 'o':
        return argument < header->slots;
    case 'b':
        return blob_fits(header, argument);
    default:
        return list_fits(header, strings, argument);
    }
}

/* Check that the block is a complete program, with every argument in its bounds. */
static int check(const char *block, size_t size, struct state *self)
{
    struct header *header = (struct header *)block;
    if (size < sizeof(*header) || header->magic != MAGIC || header->version != VERSION)
        return 0;
    if (header->flags & ~(uint32_t)TRACE)
        return 0;
    if (header->operations > MOST_OPERATIONS || header->slots < 1 || header->slots > MOST_SLOTS)
        return 0;
    size_t operations = header->operations * sizeof(struct operation);
    size_t slots = ((size_t)header->slots + 1) / 2 * 8;
    size_t times = header->flags & TRACE ? (size_t)header->operations * 16 : 0;
    size_t strings = ((size_t)header->strings + 7) / 8 * 8;
    if (size != sizeof(*header) + operations + slots + strings + times || !header->strings)
        return 0;
    self->header = header;
    self->operations = (struct operation *)(block + sizeof(*header));
    self->slots = (int32_t *)((char *)self->operations + operations);
    self->strings = (char *)self->slots + slots;
    self->times = times ? (uint64_t *)(self->strings + strings) : NULL;
    if (self->strings[header->strings - 1])
        return 0;
    for (uint32_t i = 0; i < header->operations; i++) {
        const struct operation *each = self->operations + i;
        if (each->code >= KINDS)
            return 0;
        const char *kind = TABLE[each->code].signature;
        for (size_t k = 0; k < ARGUMENTS && kind[k]; k++)
            if (!argument_fits(header, self->strings, kind[k], each->argument[k]))
                return 0;
    }
    return 1;
}

/* ---- running ---------------------------------------------------------------------------- */

uint64_t now(void)
{
    struct timespec time = {0, 0};
    SYS2(clock_gettime, 1 /* CLOCK_MONOTONIC */, &time);
    return (uint64_t)time.tv_sec * 1000000000U + (uint64_t)time.tv_nsec;
}

static __attribute__((noreturn)) void run(void)
{
    state.timing = state.times != NULL;
    for (uint32_t i = 0; i < state.header->operations; i++) {
        const struct operation *each = state.operations + i;
        uint64_t begin = state.timing ? now() : 0;
        state.current = i;
        state.detail = 0;
        state.said_size = 0;
        long result = TABLE[each->code].perform(&state, each->argument);
        if (state.timing) {
            state.times[2 * (size_t)i] = begin;
            state.times[2 * (size_t)i + 1] = now();
        }
        if (result < 0)
            fail(i, result, state.detail);
    }
    for (;;) /* a program ends with EXEC, or when its process ends */
        SYS1(exit_group, 0);
}

enum { PROT_READ = 1, PROT_WRITE = 2, MAP_PRIVATE = 2, MAP_ANONYMOUS = 0x20 };

/* Called by the entry point with the stack the kernel has made: argc, argv. Exit status 2: no program. */
__attribute__((noreturn, used)) void start(const long *stack)
{
    const char **words = (const char **)(stack + 1);
    struct stat found;
    int fd = 0;
    const char *digit = stack[0] == 2 ? words[1] : "";
    for (; *digit >= '0' && *digit <= '9' && fd < (1 << 24); digit++)
        fd = fd * 10 + (*digit - '0');
    if (fd > 2 && !*digit && SYS2(fstat, fd, &found) == 0 && found.st_size > 0) {
        /* Make a copy: then wiped strings are really gone, and no mapping leads to the file. */
        size_t size = (size_t)found.st_size;
        long block = SYS6(mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        SYS3(lseek, fd, 0, 0 /* SEEK_SET */); /* after writing, the offset is at the end */
        long got = is_error(block) ? block : read_whole(fd, (void *)block, size);
        SYS1(close, fd);
        if (got == found.st_size && check((const char *)block, size, &state))
            run();
    }
    for (;;)
        SYS1(exit_group, 2);
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call start\n hlt\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n mov x29, #0\n mov x30, #0\n mov x0, sp\n bl start\n brk #1\n");
#else
__asm__(".globl _start\n_start:\n mv a0, sp\n andi sp, sp, -16\n call start\n ebreak\n");
#endif
