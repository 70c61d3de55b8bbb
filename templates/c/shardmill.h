/* Write Shardmill handlers in C: one header. docs/abi.md describes what crosses the boundary.
 *
 *     static const char *on_click(const shardmill_record *record) { …; return NULL; }
 *     SHARDMILL_RECORD_HANDLER(on_click)
 *
 * The function is called for each record; it returns NULL, or why the record failed. The records
 * before a failed one are done. A record's bytes stay where they came in: they are not ended by a
 * zero, and are gone when the invocation ends. */
#ifndef SHARDMILL_H
#define SHARDMILL_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __wasm__
#define SHARDMILL_CALL(name) __attribute__((import_module("shardmill"), import_name(#name)))
#define SHARDMILL_EXPORT(name) __attribute__((export_name(#name)))
#else /* in tests, which bring a host of their own */
#define SHARDMILL_CALL(name)
#define SHARDMILL_EXPORT(name)
#endif

typedef struct {
    const char *at;
    uint32_t len;
} shardmill_bytes;

typedef struct {
    uint32_t index;
    shardmill_bytes key, data;
    uint64_t arrival;          /* milliseconds since the Unix epoch */
    const uint8_t *sequence;   /* 24 bytes, little-endian */
    uint32_t sub_sequence;
} shardmill_record;

enum { SHARDMILL_ERROR = 1, SHARDMILL_WARN, SHARDMILL_INFO, SHARDMILL_DEBUG, SHARDMILL_TRACE };

/* The host calls: 0 or more is good, below zero is an error of docs/abi.md. */
SHARDMILL_CALL(progress) int32_t shardmill_progress(uint32_t index);
SHARDMILL_CALL(state_get) int64_t shardmill_state_get(const char *name, uint32_t len, void *out, uint32_t cap);
SHARDMILL_CALL(state_set)
int32_t shardmill_state_set(const char *name, uint32_t len, const void *value, uint32_t value_len);
SHARDMILL_CALL(state_delete) int32_t shardmill_state_delete(const char *name, uint32_t len);
SHARDMILL_CALL(counter_add) int32_t shardmill_counter_add(const char *name, uint32_t len, int64_t n);
SHARDMILL_CALL(emit)
int32_t shardmill_emit(const char *stream, uint32_t stream_len, const char *key, uint32_t key_len, const void *data,
                       uint32_t data_len);
SHARDMILL_CALL(log) int32_t shardmill_log(int32_t level, const char *text, uint32_t len);

static inline uint32_t shardmill_u32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* The record at an index of a batch buffer. */
static inline shardmill_record shardmill_record_at(const uint8_t *batch, uint32_t index) {
    const uint8_t *entry = batch + shardmill_u32(batch + 16) + 64 * (size_t)index;
    shardmill_record record = {
        .index = index,
        .key = {(const char *)batch + shardmill_u32(entry), shardmill_u32(entry + 4)},
        .data = {(const char *)batch + shardmill_u32(entry + 8), shardmill_u32(entry + 12)},
        .sequence = entry + 16,
        .sub_sequence = shardmill_u32(entry + 52),
    };
    memcpy(&record.arrival, entry + 40, sizeof record.arrival);
    return record;
}

/* Writes an answer; `error` is NULL, or why the record at `index` failed. */
static inline uint8_t *shardmill_answer(const char *error, uint32_t index, uint32_t *len) {
    static const char type[] = "HandlerError\n";
    uint32_t text = error == NULL ? 0 : (uint32_t)(sizeof type - 1 + strlen(error));
    uint32_t failed = error == NULL ? 0 : 1;
    *len = 16 + 4 * failed + text;
    uint8_t *out = calloc(1, *len);
    if (out == NULL) abort();
    uint16_t version = 1, status = error == NULL ? 0 : 2;
    memcpy(out, "SMA1", 4);
    memcpy(out + 4, &version, 2);
    memcpy(out + 6, &status, 2);
    memcpy(out + 8, &failed, 4);
    if (failed) memcpy(out + 12, &index, 4);
    memcpy(out + 12 + 4 * failed, &text, 4);
    if (text) {
        memcpy(out + 16 + 4 * failed, type, sizeof type - 1);
        memcpy(out + 16 + 4 * failed + sizeof type - 1, error, strlen(error));
    }
    return out;
}

/* Handles a batch buffer, record after record. */
static inline uint8_t *shardmill_handle_records(const uint8_t *batch, const char *(*f)(const shardmill_record *),
                                                uint32_t *len) {
    uint32_t count = shardmill_u32(batch + 12);
    for (uint32_t index = 0; index < count; index++) {
        shardmill_progress(index);
        shardmill_record record = shardmill_record_at(batch, index);
        const char *error = f(&record);
        if (error != NULL) return shardmill_answer(error, index, len);
    }
    return shardmill_answer(NULL, 0, len);
}

/* Exports a handler in record mode that may use keyed state. */
#define SHARDMILL_RECORD_HANDLER(f)                                                                     \
    SHARDMILL_EXPORT(shardmill_abi_v1) int32_t shardmill_abi_v1(void) { return 1 | 8; }                 \
    SHARDMILL_EXPORT(shardmill_prepare) void *shardmill_prepare(uint32_t len) {                         \
        void *batch = aligned_alloc(8, (len + 7) / 8 * 8);                                              \
        if (batch == NULL) abort();                                                                     \
        return batch;                                                                                   \
    }                                                                                                   \
    SHARDMILL_EXPORT(shardmill_handle) uint64_t shardmill_handle(const uint8_t *batch, uint32_t size) { \
        uint32_t len;                                                                                   \
        (void)size;                                                                                     \
        uintptr_t answer = (uintptr_t)shardmill_handle_records(batch, f, &len);                         \
        return (uint64_t)answer << 32 | len;                                                            \
    }

#endif
