#include "strmap.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash(const char *key) {
    uint64_t h = 1469598103934665603u; /* FNV-1a */
    for (; *key; key++) {
        h ^= (unsigned char)*key;
        h *= 1099511628211u;
    }
    return h;
}

/* The slot that holds `key`, or the free one where it belongs. `capacity` is never full. */
static size_t find(const struct strmap_slot *slots, size_t capacity, const char *key) {
    size_t at = (size_t)hash(key) & (capacity - 1);
    while (slots[at].key && strcmp(slots[at].key, key) != 0)
        at = (at + 1) & (capacity - 1);
    return at;
}

void strmap_init(struct strmap *map) {
    map->slots = NULL;
    map->capacity = 0;
    map->length = 0;
}

void strmap_free(struct strmap *map) {
    for (size_t i = 0; i < map->capacity; i++)
        free(map->slots[i].key);
    free(map->slots);
    strmap_init(map);
}

static int grow(struct strmap *map) {
    size_t capacity = map->capacity ? map->capacity * 2 : 8;
    struct strmap_slot *slots = calloc(capacity, sizeof *slots);
    if (!slots)
        return -1;
    for (size_t i = 0; i < map->capacity; i++)
        if (map->slots[i].key)
            slots[find(slots, capacity, map->slots[i].key)] = map->slots[i];
    free(map->slots);
    map->slots = slots;
    map->capacity = capacity;
    return 0;
}

int strmap_set(struct strmap *map, const char *key, long value) {
    if ((map->length + 1) * 4 > map->capacity * 3 && grow(map) != 0)
        return -1;
    struct strmap_slot *slot = &map->slots[find(map->slots, map->capacity, key)];
    if (!slot->key) {
        size_t size = strlen(key) + 1;
        slot->key = malloc(size);
        if (!slot->key)
            return -1;
        memcpy(slot->key, key, size);
        map->length++;
    }
    slot->value = value;
    return 0;
}

long *strmap_get(const struct strmap *map, const char *key) {
    if (map->length == 0)
        return NULL;
    struct strmap_slot *slot = &map->slots[find(map->slots, map->capacity, key)];
    return slot->key ? &slot->value : NULL;
}

int strmap_remove(struct strmap *map, const char *key) {
    if (map->length == 0)
        return 0;
    size_t mask = map->capacity - 1;
    size_t hole = find(map->slots, map->capacity, key);
    if (!map->slots[hole].key)
        return 0;
    free(map->slots[hole].key);
    map->slots[hole].key = NULL;
    map->length--;
#ifndef BREAK
    /* Move back what probed past the hole, or it would be lost. */
    for (size_t at = (hole + 1) & mask; map->slots[at].key; at = (at + 1) & mask) {
        size_t home = (size_t)hash(map->slots[at].key) & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            map->slots[hole] = map->slots[at];
            map->slots[at].key = NULL;
            hole = at;
        }
    }
#else
    (void)mask;
#endif
    return 1;
}
