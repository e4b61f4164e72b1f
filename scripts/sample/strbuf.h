/* A growable string, and cutting strings into words. */
#ifndef STRBUF_H
#define STRBUF_H

#include <stddef.h>

struct strbuf {
    char *text; /* NUL-terminated once anything was added */
    size_t length;
    size_t capacity;
};

void strbuf_init(struct strbuf *buffer);
void strbuf_free(struct strbuf *buffer);

/* 0, or -1 when memory ran out; the buffer is then as it was. */
int strbuf_add(struct strbuf *buffer, const char *text, size_t length);

/* The next word in *cursor, which is moved behind it; its length in *length. NULL at the end. */
const char *next_word(const char **cursor, size_t *length);

#endif
