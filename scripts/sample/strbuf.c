#include "strbuf.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

void strbuf_init(struct strbuf *buffer) {
    buffer->text = NULL;
    buffer->length = 0;
    buffer->capacity = 0;
}

void strbuf_free(struct strbuf *buffer) {
    free(buffer->text);
    strbuf_init(buffer);
}

int strbuf_add(struct strbuf *buffer, const char *text, size_t length) {
    size_t needed = buffer->length + length + 1;
    if (needed > buffer->capacity) {
        size_t capacity = buffer->capacity ? buffer->capacity : 16;
        while (capacity < needed)
            capacity *= 2;
        char *grown = realloc(buffer->text, capacity);
        if (!grown)
            return -1;
        buffer->text = grown;
        buffer->capacity = capacity;
    }
    memcpy(buffer->text + buffer->length, text, length);
    buffer->length += length;
    buffer->text[buffer->length] = '\0';
    return 0;
}

const char *next_word(const char **cursor, size_t *length) {
    const char *at = *cursor;
    while (*at && !isalnum((unsigned char)*at))
        at++;
    const char *start = at;
    while (isalnum((unsigned char)*at))
        at++;
    *cursor = at;
    *length = (size_t)(at - start);
    return *length ? start : NULL;
}
