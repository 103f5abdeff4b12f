/* One event, checked and laid out as the parameters of the INSERT. Private to libtandem-outbox. */
#ifndef TANDEM_OUTBOX_ROW_H
#define TANDEM_OUTBOX_ROW_H

#include "producer/outbox.h"

#define OUTBOX_PARAMS 11
#define OUTBOX_TRACEPARENT_CHARS 55

/* In the order of the columns in the INSERT of outbox.c, or one parameter with all of them: the content of a message. */
struct outbox_row {
    int params;
    const char *values[OUTBOX_PARAMS]; /* borrowed from the event and from below */
    int lengths[OUTBOX_PARAMS];
    unsigned char id[16];
    char id_text[OUTBOX_EVENT_ID_BYTES];
    char traceparent[OUTBOX_TRACEPARENT_CHARS + 1];
    unsigned char partition[4], timestamp[8]; /* binary, as Postgres takes them */
    int64_t unix_us;                          /* the timestamp */
    char *headers, *content;                  /* owned */
};

/* Check ev and fill row, which borrows from ev and points into itself: do not copy it. 0, or -1 with nothing to free. */
int outbox_row_init(struct outbox_row *row, const struct outbox_event *ev, struct outbox_err *err);
/* Make of the row the content of a message, its only parameter from now on. 0, or -1 (no memory) with the row done. */
int outbox_row_to_message(struct outbox_row *row, struct outbox_err *err);
void outbox_row_done(struct outbox_row *row);

/* Fill err, when there is one, and return -1. The message becomes one line. */
__attribute__((format(printf, 3, 4))) int outbox_fail(struct outbox_err *err, int retriable, const char *fmt,
                                                      ...);

#endif
