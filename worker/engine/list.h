/* A doubly linked list through a member of its items: O(1) in, O(1) out of the middle, no memory of its own. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/compiler.h"

/* Embedded in the item. A zeroed link is in no list; an item can be in one list per link. */
struct link {
    struct link *prev, *next;
};

/* A list_init'ed ring: its head is no item. */
struct list {
    struct link head;
};

/* The item that holds this link (or heap node) as the named member. */
#define OWNER_OF(member_ptr, type, member) ((type *)(void *)((char *)(member_ptr)-offsetof(type, member)))

static inline void list_init(struct list *list)
{
    list->head.prev = list->head.next = &list->head;
}

static inline bool link_in_list(const struct link *link)
{
    return link->next != NULL;
}

static inline void list_push(struct list *list, struct link *link)
{
    ENSURE(!link_in_list(link));
    link->prev = list->head.prev;
    link->next = &list->head;
    list->head.prev->next = link;
    list->head.prev = link;
}

/* No effect on a link that is in no list. */
static inline void link_remove(struct link *link)
{
    if (!link_in_list(link))
        return;
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->prev = link->next = NULL;
}

/* NULL: the list is empty. */
static inline struct link *list_first(const struct list *list)
{
    return list->head.next == &list->head ? NULL : list->head.next;
}

static inline struct link *list_last(const struct list *list)
{
    return list->head.prev == &list->head ? NULL : list->head.prev;
}

/* NULL: link is the last one. */
static inline struct link *list_after(const struct list *list, const struct link *link)
{
    return link->next == &list->head ? NULL : link->next;
}

static inline struct link *list_before(const struct list *list, const struct link *link)
{
    return link->prev == &list->head ? NULL : link->prev;
}

static inline struct link *list_pop(struct list *list)
{
    struct link *link = list_first(list);
    if (link != NULL)
        link_remove(link);
    return link;
}
