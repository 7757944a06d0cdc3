/*
 * JSON (RFC 8259): the value of a text, and a text as a JSON string.
 *
 * Every verb reads a record or a configuration. Python's own scanner is a library in most
 * distributions, and to load it takes 0.6 ms, a quarter of `state`. This one takes the same
 * texts, less NaN and the infinities; why it does not take one is found out by
 * spec/json_slow.py. The depth of calls is limited, so no text can exhaust the stack.
 */
#include "_linux.h"

#define DEEPEST 200 /* jsonio.MAX_DEPTH */
#define SLOTS 64
#define SHORT 18 /* digits of a number that surely fits in 64 bits */

struct scan {
    const char *at, *end; /* UTF-8; there is a NUL at the end */
    const char *errors; /* how surrogates were encoded, and are decoded: NULL if there are none */
    /* Names that were met: most occur more than once, and are then one object. */
    struct {
        const char *begin;
        Py_ssize_t length;
        PyObject *name;
    } names[SLOTS];
};

static PyObject *refuse(const char *why)
{
    PyErr_SetString(PyExc_ValueError, why);
    return NULL;
}

static void skip(struct scan *scan)
{
    while (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\t' || *scan->at == '\r')
        scan->at++;
}

static int is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

/* The number of four hexadecimal digits, -1 if there are no four. */
static int four_digits(const char *at)
{
    int value = 0;

    for (int i = 0; i < 4; i++) {
        const char byte = at[i], small = byte | 0x20;

        if (is_digit(byte))
            value = value << 4 | (byte - '0');
        else if (small >= 'a' && small <= 'f')
            value = value << 4 | (small - 'a' + 10);
        else
            return -1;
    }
    return value;
}

/* Write a character as UTF-8, a surrogate as `surrogatepass` does; return how many bytes. */
static int put(char *to, unsigned point)
{
    if (point < 0x80) {
        to[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        to[0] = (char)(0xc0 | point >> 6);
        to[1] = (char)(0x80 | (point & 0x3f));
        return 2;
    }
    if (point < 0x10000) {
        to[0] = (char)(0xe0 | point >> 12);
        to[1] = (char)(0x80 | (point >> 6 & 0x3f));
        to[2] = (char)(0x80 | (point & 0x3f));
        return 3;
    }
    to[0] = (char)(0xf0 | point >> 18);
    to[1] = (char)(0x80 | (point >> 12 & 0x3f));
    to[2] = (char)(0x80 | (point >> 6 & 0x3f));
    to[3] = (char)(0x80 | (point & 0x3f));
    return 4;
}

/* Decode the escape at `from`, which is behind its backslash. Returns the end of it, NULL if it is none. */
static const char *unescape(const char *from, char *to, int *written, int *surrogate)
{
    static const char NAMES[] = "\"\\/bfnrt", MEANINGS[] = "\"\\/\b\f\n\r\t";
    const char *name;
    int point, low;

    if (*from != 'u') {
        if (!*from || !(name = strchr(NAMES, *from)))
            return NULL;
        *to = MEANINGS[name - NAMES];
        *written = 1;
        return from + 1;
    }
    if ((point = four_digits(from + 1)) < 0)
        return NULL;
    from += 5;
    if (point >= 0xd800 && point < 0xdc00 && from[0] == '\\' && from[1] == 'u' &&
        (low = four_digits(from + 2)) >= 0xdc00 && low < 0xe000) {
        point = 0x10000 + ((point - 0xd800) << 10 | (low - 0xdc00));
        from += 6;
    }
    if (point >= 0xd800 && point < 0xe000)
        *surrogate = 1;
    *written = put(to, (unsigned)point);
    return from;
}

/* The string whose contents are from `begin` to `end`, and have escapes. */
static PyObject *unescaped(const struct scan *scan, const char *begin, const char *end)
{
    int surrogate = 0, written;
    char *made = PyMem_Malloc((size_t)(end - begin) + 1), *to = made;
    PyObject *result;

    if (!made)
        return PyErr_NoMemory();
    while (begin < end) {
        if (*begin != '\\') {
            *to++ = *begin++;
            continue;
        }
        begin = unescape(begin + 1, to, &written, &surrogate); /* never longer than what it is written as */
        if (!begin) {
            PyMem_Free(made);
            return refuse("not JSON");
        }
        to += written;
    }
    result = PyUnicode_DecodeUTF8(made, to - made, surrogate ? "surrogatepass" : scan->errors);
    PyMem_Free(made);
    return result;
}

/* A string; the place is behind its first quote. */
static PyObject *string(struct scan *scan, int is_name)
{
    const char *begin = scan->at, *at = begin;
    int escapes = 0;
    unsigned hash = 0;
    PyObject *made;

    for (; *at != '"'; at++) {
        if ((unsigned char)*at < 0x20) /* also at the end of the text */
            return refuse("not JSON");
        if (*at == '\\') {
            escapes = 1;
            if ((unsigned char)*++at < 0x20)
                return refuse("not JSON");
        }
        hash = hash * 31 + (unsigned char)*at;
    }
    scan->at = at + 1;
    if (escapes)
        return unescaped(scan, begin, at);
    if (!is_name)
        return PyUnicode_DecodeUTF8(begin, at - begin, scan->errors);
    hash = (hash ^ hash >> 8) % SLOTS;
    if (scan->names[hash].name && scan->names[hash].length == at - begin &&
        memcmp(scan->names[hash].begin, begin, (size_t)(at - begin)) == 0)
        return Py_NewRef(scan->names[hash].name);
    if (!(made = PyUnicode_DecodeUTF8(begin, at - begin, scan->errors)))
        return NULL;
    Py_XDECREF(scan->names[hash].name);
    scan->names[hash].begin = begin;
    scan->names[hash].length = at - begin;
    scan->names[hash].name = Py_NewRef(made);
    return made;
}

static PyObject *number(struct scan *scan)
{
    const char *begin = scan->at, *at = begin + (*begin == '-'), *digits = at;
    long long value = 0;
    int is_whole = 1;
    PyObject *text, *made;

    if (!is_digit(*at))
        return refuse("not JSON");
    if (*at == '0')
        at++;
    else
        while (is_digit(*at))
            at++;
    const char *whole = at;
    if (at[0] == '.' && is_digit(at[1])) {
        is_whole = 0;
        for (at++; is_digit(*at);)
            at++;
    }
    if ((*at | 0x20) == 'e') {
        const char *exponent = at + 1 + (at[1] == '+' || at[1] == '-');

        if (is_digit(*exponent)) {
            is_whole = 0;
            for (at = exponent; is_digit(*at);)
                at++;
        }
    }
    scan->at = at; /* what else may follow is no part of any JSON text, and is refused by the caller */
    if (is_whole && whole - digits <= SHORT) {
        for (; digits < whole; digits++)
            value = value * 10 + (*digits - '0');
        return PyLong_FromLongLong(*begin == '-' ? -value : value);
    }
    if (!(text = PyUnicode_DecodeASCII(begin, at - begin, NULL)))
        return NULL;
    made = is_whole ? PyNumber_Long(text) : PyFloat_FromString(text);
    Py_DECREF(text);
    return made;
}

static PyObject *value(struct scan *scan, int depth);

static PyObject *array(struct scan *scan, int depth)
{
    PyObject *list = PyList_New(0), *item;

    if (!list)
        return NULL;
    skip(scan);
    if (*scan->at == ']') {
        scan->at++;
        return list;
    }
    for (;;) {
        int failed = !(item = value(scan, depth + 1)) || PyList_Append(list, item) < 0;

        Py_XDECREF(item);
        if (failed)
            break;
        skip(scan);
        if (*scan->at == ']') {
            scan->at++;
            return list;
        }
        if (*scan->at++ != ',') {
            refuse("not JSON");
            break;
        }
        skip(scan);
    }
    Py_DECREF(list);
    return NULL;
}

/* One member of an object. Returns 0, or -1. */
static int member(struct scan *scan, PyObject *dict, int depth)
{
    PyObject *name, *item = NULL;
    int failed = 1;

    if (*scan->at != '"') {
        refuse("not JSON");
        return -1;
    }
    scan->at++;
    if (!(name = string(scan, 1)))
        return -1;
    skip(scan);
    if (*scan->at != ':') {
        refuse("not JSON");
    } else {
        scan->at++;
        skip(scan);
        item = value(scan, depth + 1);
        failed = !item || PyDict_SetItem(dict, name, item) < 0;
    }
    Py_DECREF(name);
    Py_XDECREF(item);
    return failed ? -1 : 0;
}

static PyObject *object(struct scan *scan, int depth)
{
    PyObject *dict = PyDict_New();

    if (!dict)
        return NULL;
    skip(scan);
    if (*scan->at == '}') {
        scan->at++;
        return dict;
    }
    while (member(scan, dict, depth) == 0) {
        skip(scan);
        if (*scan->at == '}') {
            scan->at++;
            return dict;
        }
        if (*scan->at++ != ',') {
            refuse("not JSON");
            break;
        }
        skip(scan);
    }
    Py_DECREF(dict);
    return NULL;
}

static PyObject *value(struct scan *scan, int depth)
{
    static const struct {
        const char *word;
        size_t length;
    } WORDS[] = {{"null", 4}, {"false", 5}, {"true", 4}};
    const char first = *scan->at;

    if (depth > DEEPEST)
        return refuse("JSON values are nested more than 200 levels deep");
    if (first == '"' || first == '{' || first == '[') {
        scan->at++;
        return first == '"' ? string(scan, 0) : first == '{' ? object(scan, depth) : array(scan, depth);
    }
    for (int i = 0; i < 3; i++)
        if (strncmp(scan->at, WORDS[i].word, WORDS[i].length) == 0) {
            scan->at += WORDS[i].length;
            return i ? PyBool_FromLong(i - 1) : Py_NewRef(Py_None);
        }
    return number(scan);
}

/* The UTF-8 of a text, and how its surrogates are written: NULL if it has none. */
static const char *utf8(PyObject *text, Py_ssize_t *length, PyObject **copy, const char **errors)
{
    const char *bytes = PyUnicode_AsUTF8AndSize(text, length);

    *copy = NULL;
    *errors = NULL;
    if (bytes || !PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
        return bytes;
    PyErr_Clear();
    *errors = "surrogatepass";
    if (!(*copy = PyUnicode_AsEncodedString(text, "utf-8", *errors)))
        return NULL;
    *length = PyBytes_Size(*copy);
    return PyBytes_AsString(*copy);
}

METHOD(read_json)
{
    PyObject *text, *copy, *result;
    struct scan scan;
    Py_ssize_t length;

    PARSE("U:read_json", &text);
    memset(&scan, 0, sizeof(scan));
    if (!(scan.at = utf8(text, &length, &copy, &scan.errors)))
        return NULL;
    scan.end = scan.at + length;
    skip(&scan);
    result = value(&scan, 0);
    if (result) {
        skip(&scan);
        if (scan.at != scan.end) {
            Py_CLEAR(result);
            refuse("more text after the JSON value");
        }
    }
    for (int i = 0; i < SLOTS; i++)
        Py_XDECREF(scan.names[i].name);
    Py_XDECREF(copy);
    return result;
}

/* Write a character as one escape, or as two; return the end of it. */
static char *put_escape(char *to, unsigned point)
{
    if (point >= 0x10000) {
        to = put_escape(to, 0xd800 + ((point - 0x10000) >> 10));
        point = 0xdc00 + ((point - 0x10000) & 0x3ff);
    }
    *to++ = '\\';
    *to++ = 'u';
    for (int shift = 12; shift >= 0; shift -= 4)
        *to++ = "0123456789abcdef"[point >> shift & 15];
    return to;
}

METHOD(quote_json)
{
    static const char MEANT[] = "\"\\\b\f\n\r\t", NAMES[] = "\"\\bfnrt";
    PyObject *text, *copy, *result = NULL;
    Py_ssize_t length;
    const char *errors, *at, *end;
    char *made = NULL, *to;

    PARSE("U:quote_json", &text);
    if (!(at = utf8(text, &length, &copy, &errors)))
        return NULL;
    /* A byte becomes at most six, a control character; four bytes become at most twelve. */
    if (length < PY_SSIZE_T_MAX / 6 - 2)
        made = PyMem_Malloc((size_t)length * 6 + 2);
    if (!made)
        PyErr_NoMemory();
    to = made;
    end = at + length;
    if (made)
        *to++ = '"';
    while (made && at < end) {
        const unsigned char byte = (unsigned char)*at++;
        const char *special;

        if (byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\') {
            *to++ = (char)byte;
        } else if (byte && (special = strchr(MEANT, byte))) {
            *to++ = '\\';
            *to++ = NAMES[special - MEANT];
        } else {
            unsigned more = byte < 0xc0 ? 0 : byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
            unsigned point = more ? byte & (0x3f >> more) : byte;

            for (; more; more--)
                point = point << 6 | ((unsigned char)*at++ & 0x3f);
            to = put_escape(to, point);
        }
    }
    if (made) {
        *to++ = '"';
        result = PyUnicode_DecodeASCII(made, to - made, NULL);
    }
    PyMem_Free(made);
    Py_XDECREF(copy);
    return result;
}
