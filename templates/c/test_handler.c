/* Run with: make test */

#include <assert.h>
#include <stdio.h>

#include "shardmill.h"

const char *on_click(const shardmill_record *record);

/* A host that remembers. */
static int64_t views;
static char last_page[64];

int32_t shardmill_progress(uint32_t index) { return (int32_t)(index & 0); }
int32_t shardmill_counter_add(const char *name, uint32_t len, int64_t n) {
    assert(len == 5 && memcmp(name, "views", 5) == 0);
    views += n;
    return 0;
}
int32_t shardmill_state_set(const char *name, uint32_t len, const void *value, uint32_t value_len) {
    assert(len == 9 && memcmp(name, "last_page", 9) == 0 && value_len < sizeof last_page);
    memset(last_page, 0, sizeof last_page);
    memcpy(last_page, value, value_len);
    return 0;
}

static shardmill_record record(const char *page) {
    return (shardmill_record){.key = {"ann", 3}, .data = {page, (uint32_t)strlen(page)}};
}

int main(void) {
    shardmill_record home = record("/"), cart = record("/cart"), other = record("hello");
    assert(on_click(&home) == NULL);
    assert(on_click(&cart) == NULL);
    assert(views == 2 && strcmp(last_page, "/cart") == 0);
    assert(on_click(&other) != NULL);
    assert(views == 2);
    puts("2 views counted, the last page kept, what is no page refused");
    return 0;
}
