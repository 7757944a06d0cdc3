/*
 * Break the checker and the loop of the init program (pyrunc/init/init.c) on purpose, with the sanitizers watching:
 *
 *     fuzz_init SECONDS|COUNTx SEED FILE...
 *
 * Each file is a good program. They are cut, changed and mixed; what check() takes is then run with operations that
 * only read and write all that their arguments name, which check() has promised to be there.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* What the program has of its own, by other names: this one is linked with a C library. */
#define timespec init_timespec
#define memcpy init_memcpy
#define memset init_memset
#define start init_start
#include "sys.h"

static jmp_buf end;
static unsigned long checksum, accepted;

/* No system call is made: each succeeds, and the end is the end of one input. */
static long stub(long nr, long first, long second, long third)
{
    if (nr == NR_exit_group)
        longjmp(end, 1);
    if (nr == NR_write) { /* what is sent must be readable */
        for (long i = 0; i < third; i++)
            checksum += ((const unsigned char *)second)[i];
        return third;
    }
    (void)first;
    return 0; /* what it would fill is left as it is */
}
#undef SYS0
#undef SYS1
#undef SYS2
#undef SYS3
#undef SYS4
#undef SYS5
#undef SYS6
#define SYS0(name) stub(NR_##name, 0, 0, 0)
#define SYS1(name, a) stub(NR_##name, L(a), 0, 0)
#define SYS2(name, a, b) stub(NR_##name, L(a), L(b), 0)
#define SYS3(name, a, b, c) stub(NR_##name, L(a), L(b), L(c))
#define SYS4(name, a, b, c, d) stub(NR_##name, L(a), L(b), L(c))
#define SYS5(name, a, b, c, d, e) stub(NR_##name, L(a), L(b), L(c))
#define SYS6(name, a, b, c, d, e, f) stub(NR_##name, L(a), L(b), L(c))
#define __asm__(text) struct unused /* the entry point: this program has another one */
#include "init.c"
#undef __asm__

void take_back(struct state *self)
{
    (void)self;
}

/* Touch everything that the arguments of an operation name. */
static long touch(struct state *self, const uint64_t *argument, const char *signature)
{
    for (size_t k = 0; signature[k]; k++) {
        const unsigned char *blob = blob_at(self, argument[k]);
        switch (signature[k]) {
        case 's':
            checksum += length_of(string_at(self, argument[k]));
            break;
        case 'i':
            checksum += (unsigned)self->slots[argument[k]];
            break;
        case 'o':
            self->slots[argument[k]] = 1;
            break;
        case 'b':
            for (uint32_t i = 0; i < BLOB_LENGTH(argument[k]); i++)
                checksum += blob[i];
            break;
        case 'l':
            for (uint32_t i = 0; i < BLOB_LENGTH(argument[k]) / 4; i++)
                checksum += length_of(self->strings + ((const uint32_t *)blob)[i]);
            break;
        }
    }
    return checksum % 61 ? 0 : -EINVAL; /* some fail, and are told */
}
#define OPERATION(name, signature)                               \
    long do_##name(struct state *self, const uint64_t *argument) \
    {                                                            \
        return touch(self, argument, signature);                 \
    }
#include "operations.def"
#undef OPERATION

static void one(const unsigned char *data, size_t size)
{
    /* Of exactly its size, so that the address sanitizer sees a byte too far; aligned as a mapping is. */
    char *block = NULL;
    if (posix_memalign((void **)&block, 4096, size ? size : 1))
        abort();
    __builtin_memcpy(block, data, size);
    init_memset(&state, 0, sizeof(state));
    if (setjmp(end) == 0 && check(block, size, &state)) {
        accepted++;
        run();
    }
    free(block);
}

enum { MOST = 1 << 16 };
static uint64_t dice = 1;

static uint64_t draw(void) /* xorshift64* */
{
    dice ^= dice >> 12;
    dice ^= dice << 25;
    dice ^= dice >> 27;
    return dice * 0x2545F4914F6CDD1DULL;
}

static uint64_t odd_number(void)
{
    static const uint64_t NUMBERS[] = {0,
                                       1,
                                       2,
                                       3,
                                       4,
                                       7,
                                       8,
                                       63,
                                       64,
                                       65,
                                       255,
                                       4096,
                                       0x7fffffff,
                                       0x80000000,
                                       0xffffffff,
                                       0x100000000,
                                       0x7fffffffffffffff,
                                       0x8000000000000000,
                                       ~0ULL};
    uint64_t number = NUMBERS[draw() % (sizeof(NUMBERS) / sizeof(*NUMBERS))];
    return draw() % 4 ? number : draw() >> draw() % 64;
}

static size_t change(unsigned char *data, size_t size)
{
    uint64_t number = odd_number();
    size_t place = size ? draw() % size : 0;
    switch (draw() % 8) {
    case 0: /* a bit */
        if (size)
            data[place] ^= (unsigned char)(1 << draw() % 8);
        break;
    case 1: /* a field of the header */
        if (size >= 24)
            __builtin_memcpy(data + 4 * (draw() % 6), &number, 4);
        break;
    case 2:
    case 3: /* a number, where one may be */
        place = place / 4 * 4;
        if (place + 8 <= size)
            __builtin_memcpy(data + place, &number, draw() % 2 ? 4 : 8);
        break;
    case 4: /* a number a little off */
        place = place / 4 * 4;
        if (place + 4 <= size) {
            uint32_t old;
            __builtin_memcpy(&old, data + place, 4);
            old += (uint32_t)(draw() % 17) - 8;
            __builtin_memcpy(data + place, &old, 4);
        }
        break;
    case 5: /* the end */
        return draw() % 4 ? size : place;
    case 6: /* longer */
        for (uint64_t more = draw() % 64; more && size < MOST; more--)
            data[size++] = (unsigned char)draw();
        return size;
    default: /* another operation */
        if (size >= 64)
            data[24 + draw() % ((size - 24) / 40) * 40] = (unsigned char)(draw() % 64);
    }
    return size;
}

int main(int count, char **words)
{
    static unsigned char seeds[64][MOST], data[MOST];
    static size_t sizes[64];
    int files = 0;
    if (count < 4)
        return 2;
    for (int i = 3; i < count && files < 64; i++, files++) {
        FILE *file = fopen(words[i], "rb");
        if (!file)
            return 2;
        sizes[files] = fread(seeds[files], 1, MOST, file);
        fclose(file);
        one(seeds[files], sizes[files]);
    }
    if (accepted != (unsigned long)files) {
        fprintf(stderr, "%lu of %d good programs were taken\n", accepted, files);
        return 3;
    }
    char *unit = NULL;
    unsigned long limit = strtoul(words[1], &unit, 10), tried = 0;
    dice = strtoull(words[2], NULL, 10) | 1;
    time_t last = time(NULL) + (time_t)limit;
    for (; *unit == 'x' ? tried < limit : (tried % 1024 || time(NULL) < last); tried++) {
        int seed = (int)(draw() % (unsigned)files);
        size_t size = sizes[seed];
        __builtin_memcpy(data, seeds[seed], size);
        for (uint64_t times = 1 + draw() % 4; times; times--)
            size = change(data, size);
        one(data, size);
    }
    printf("%lu tried, %lu accepted\n", tried, accepted);
    return 0;
}
