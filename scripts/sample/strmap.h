/* A hash table from strings to longs: open addressing, linear probing, tombstone-free deletion. */
#ifndef STRMAP_H
#define STRMAP_H

#include <stddef.h>

struct strmap_slot {
    char *key; /* owned; NULL when the slot is free */
    long value;
};

struct strmap {
    struct strmap_slot *slots;
    size_t capacity; /* 0 or a power of two */
    size_t length;
};

void strmap_init(struct strmap *map);
void strmap_free(struct strmap *map);

/* 0, or -1 when memory ran out; the map is then as it was. */
int strmap_set(struct strmap *map, const char *key, long value);

/* The place of the value, or NULL. Valid until the next set or remove. */
long *strmap_get(const struct strmap *map, const char *key);

/* 1 when the key was there. */
int strmap_remove(struct strmap *map, const char *key);

#endif
