/* The tests of strmap and strbuf. Prints one line a test; exits 1 when one failed. */
#include "strbuf.h"
#include "strmap.h"

#include <stdio.h>
#include <string.h>

static int checks_failed;

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);    \
            checks_failed++;                                                   \
        }                                                                      \
    } while (0)

static void map_empty(void) {
    struct strmap map;
    strmap_init(&map);
    CHECK(strmap_get(&map, "a") == NULL);
    CHECK(strmap_remove(&map, "a") == 0);
    strmap_free(&map);
}

static void map_overwrite(void) {
    struct strmap map;
    strmap_init(&map);
    CHECK(strmap_set(&map, "a", 1) == 0);
    CHECK(strmap_set(&map, "a", 2) == 0);
    CHECK(map.length == 1);
    CHECK(*strmap_get(&map, "a") == 2);
    strmap_free(&map);
}

static void map_many(void) {
    struct strmap map;
    char key[32];
    strmap_init(&map);
    for (long i = 0; i < 5000; i++) {
        snprintf(key, sizeof key, "key %ld", i);
        CHECK(strmap_set(&map, key, i * i) == 0);
    }
    CHECK(map.length == 5000);
    for (long i = 0; i < 5000; i++) {
        snprintf(key, sizeof key, "key %ld", i);
        long *value = strmap_get(&map, key);
        CHECK(value && *value == i * i);
    }
    strmap_free(&map);
}

static void map_remove(void) {
    struct strmap map;
    char key[32];
    long lost = 0;
    strmap_init(&map);
    for (long i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "key %ld", i);
        strmap_set(&map, key, i);
    }
    for (long i = 0; i < 1000; i += 2) {
        snprintf(key, sizeof key, "key %ld", i);
        strmap_remove(&map, key);
    }
    for (long i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "key %ld", i);
        lost += (strmap_get(&map, key) != NULL) != (i % 2 == 1);
    }
    CHECK(lost == 0);
    CHECK(map.length == 500);
    strmap_free(&map);
}

static void buffer_grows(void) {
    struct strbuf buffer;
    strbuf_init(&buffer);
    for (int i = 0; i < 1000; i++)
        CHECK(strbuf_add(&buffer, "abc", 3) == 0);
    CHECK(buffer.length == 3000);
    CHECK(strlen(buffer.text) == 3000);
    CHECK(memcmp(buffer.text + 2997, "abc", 4) == 0);
    strbuf_free(&buffer);
}

static void words_counted(void) {
    const char *cursor = "the cat, the hat -- and the bat.";
    const char *word;
    size_t length;
    struct strmap counts;
    strmap_init(&counts);
    while ((word = next_word(&cursor, &length))) {
        struct strbuf key;
        strbuf_init(&key);
        strbuf_add(&key, word, length);
        long *count = strmap_get(&counts, key.text);
        strmap_set(&counts, key.text, count ? *count + 1 : 1);
        strbuf_free(&key);
    }
    CHECK(counts.length == 5);
    CHECK(strmap_get(&counts, "the") && *strmap_get(&counts, "the") == 3);
    CHECK(strmap_get(&counts, "bat") && *strmap_get(&counts, "bat") == 1);
    strmap_free(&counts);
}

int main(void) {
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
        {"map_empty", map_empty},       {"map_overwrite", map_overwrite},
        {"map_many", map_many},         {"map_remove", map_remove},
        {"buffer_grows", buffer_grows}, {"words_counted", words_counted},
    };
    int failed = 0;
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        checks_failed = 0;
        tests[i].run();
        printf("%s %s\n", checks_failed ? "FAIL" : "ok  ", tests[i].name);
        failed += checks_failed != 0;
    }
    printf("%d of %zu failed\n", failed, sizeof tests / sizeof *tests);
    return failed != 0;
}
