/* A handler: counts views, and keeps each visitor's last page. A record's data is the page. */

#include "shardmill.h"

const char *on_click(const shardmill_record *record) {
    if (record->data.len == 0 || record->data.at[0] != '/') return "a page begins with a slash";
    shardmill_counter_add("views", 5, 1);
    shardmill_state_set("last_page", 9, record->data.at, record->data.len);
    return NULL;
}

SHARDMILL_RECORD_HANDLER(on_click)
