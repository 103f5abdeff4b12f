/*
 * The worker's world: a Kafka, an API and some worker processes, all simulated, around real delivery engines.
 *
 *   worker_plan    what a seed's world contains         worker_broker  topics, committed offsets
 *   worker_world   runs it, calms it, ends it           worker_group   the group coordinator
 *   worker_api     the API, its moods and lies          worker_node    a process: carries out its engine's actions
 *   worker_oracle  knows the truth, checks G2 … G7      worker_member  a process: joins, is assigned, drains, dies
 *   worker_limits  how much may be sent, and how often  worker_operator  overrides the breaker, pauses the destination
 *   worker_parcel  requests of one event or of several          worker_incremental  the group as with KIP-848, and a process in it
 *   worker_job     a process in one-shot mode                   worker_lists    members that read different topics
 *   worker_outage  when the API counts as down, and is only probed
 *   worker_depart  a request between its SEND and the wire: waits, asks again, goes out twice
 */
#pragma once

#include "common/clock.h"
#include "tests/sim/sim.h"
#include "worker/engine/engine.h"
#include "worker/engine/goal.h"
#include "worker/engine/whole.h"

#define NODES_MAX 4
#define PARTITIONS_MAX 4
#define EVENTS_MAX 64
#define KEYS_MAX 8
#define LOG_MAX 512
#define HELD_MAX 256
#define OUTAGES_MAX 4
#define ROUTES_MAX 3  /* endpoints of the API */
#define SENT_MAX 4096 /* requests of one process that the oracle remembers */
#define ANSWERS_MAX 1024
#define TOPICS_MAX 3
#define PARTS_MAX (TOPICS_MAX * PARTITIONS_MAX) /* a part: one topic's of a partition number */
/* A feed is a topic that a worker reads events from: the source topics, then the replay topic. */
#define FEEDS (TOPICS_MAX + 1)
#define FEED_REPLAY TOPICS_MAX
static inline enum stream_kind feed_kind(int feed)
{
    return feed == FEED_REPLAY ? STREAM_REPLAY : STREAM_SOURCE;
}
static inline const char *feed_name(int feed)
{
    static const char *const names[FEEDS] = {"source", "second", "third", "replay"};
    return names[feed];
}

/* X(id, "name as the trace and the options call it") */
#define WORKER_FAULTS(X)                                                                                     \
    X(KILL, "kill")                                                                                          \
    X(STOP, "graceful-stop")                                                                                 \
    X(STALL, "stall")                                                                                        \
    X(REBALANCE, "rebalance")                                                                                \
    X(COMMIT_FAILS, "commit-fails")                                                                          \
    X(COMMIT_ANSWER_LOST, "commit-answer-lost")                                                              \
    X(METADATA, "metadata-damaged")                                                                          \
    X(DLQ_FAILS, "dlq-fails")                                                                                \
    X(DLQ_SLOW, "dlq-slow")                                                                                  \
    X(API_SLOW, "api-slow")                                                                                  \
    X(API_SHARE, "api-fails-a-share")                                                                        \
    X(API_KEY, "api-fails-a-key")                                                                            \
    X(API_REJECTS, "api-rejects")                                                                            \
    X(API_OUTAGE, "api-outage")                                                                              \
    X(API_AUTH, "api-auth")                                                                                  \
    X(API_THROTTLE, "api-throttle")                                                                          \
    X(API_LIES, "api-lies")                                                                                  \
    X(API_LOST, "answers-lost")                                                                              \
    X(REPLAY, "replay")                                                                                      \
    X(GAPS, "offset-gaps")                                                                                   \
    X(BAD_RECORDS, "bad-records")                                                                            \
    X(KEYLESS, "keyless")                                                                                    \
    X(FETCH_SLOW, "fetch-slow")                                                                              \
    X(FEW_PARKED, "few-parked-keys")                                                                         \
    X(API_CROWDED, "api-slows-under-load")                                                                   \
    X(API_QUOTA, "api-quota")                                                                                \
    X(SLOW_PACE, "slow-pace")                                                                                \
    X(SMALL_BUDGET, "small-retry-budget")                                                                    \
    X(OPERATOR, "operator")                                                                                  \
    X(API_ENDPOINT, "api-endpoint-down")                                                                     \
    X(BATCHES, "batches")                                                                                    \
    X(BATCH_WHOLE, "batch-refused-whole")                                                                    \
    X(TOPICS, "two-topics")                                                                                  \
    X(INCREMENTAL, "incremental-group")                                                                      \
    X(ANEW, "topic-made-anew")                                                                               \
    X(ONESHOT, "one-shot")                                                                                   \
    X(LISTS, "lists-of-topics-differ")                                                                       \
    X(API_KEY_QUOTA, "api-refuses-a-key")                                                                    \
    X(ZOMBIE, "sleeps-on-a-parked-state")                                                                    \
    X(WAITS, "requests-wait")                                                                                \
    X(RESENT, "requests-sent-again")                                                                         \
    X(UNWANTED, "event-becomes-unwanted")
enum fault {
#define X(id, name) FAULT_##id,
    WORKER_FAULTS(X)
#undef X
        FAULT_COUNT
};

/* One business event, and all that is true of it. */
struct truth {
    char id[16];
    int key; /* -1: none */
    int topic, partition, route;
    size_t bytes;
    bool skip;     /* by rule not for us, from the start or once it is a dead letter */
    bool bad;      /* no request can be made of it, until all is mended */
    bool alone;    /* it never goes with others */
    bool rejected; /* the API answers 4xx until it is mended */
    bool gone;     /* unfinished when its topic was deleted: it may be lost */
    bool executed, delivered, buried, parked;
    bool told;         /* parked by one that had the partition: whoever takes it from then on reads that */
    bool open;         /* a dead letter that no replay has delivered yet */
    int64_t buried_at; /* its first dead letter */
    bool
        trace; /* executed by a sending that had no answer: the API's state is not the one that it was made for */
    bool doubted; /* its dead letter says that an attempt may have been executed */
    int replays;
};

/* One record of a source or replay partition, and what became of it. */
struct entry {
    int event;      /* index of its truth */
    int generation; /* of which log under this name */
    int64_t offset;
    int32_t epoch;
    int replay_count;
    bool delivered;   /* some engine was told of its success */
    bool buried;      /* its dead letter of this round is in the dead-letter topic */
    bool bury_asked;  /* an engine decided on it */
    bool passed_over; /* a replay that was let go as not wanted */
    unsigned refused; /* a bit per process: the last answer it got was a 4xx by rule */
    int executions;
    bool excused;      /* it may be executed again: its success was never known, or could not be committed */
    uint64_t known_by; /* the life (node.life) that knows of its success */
    uint64_t ok_order; /* when, in world.ok_order */
    bool covered;      /* a commit that includes its success was applied */
    int counted,
        counted_kept;    /* attempts as the engine showed them last, and when a process gave it up in peace */
    uint64_t counted_by; /* the assignment that showed `counted` */
    int64_t kept_at;
    int payable; /* failures that an engine was allowed to count, all lives together */
    struct {
        uint64_t life, successes, first;
        uint64_t
            halved; /* the life in which a batch with it was refused as a whole, last; 0: it ended otherwise */
        uint64_t refused_life; /* in which it was refused with 401 or 403 */
        int refused;           /* so often there */
    } mark[NODES_MAX];     /* by process: its successes at this record's dispatch, then at its last failure */
    uint64_t ambiguous_by; /* the assignment in which it ended without a known result */
    int64_t doubt_kept_at; /* a process gave it up in peace, and had committed that; 0: none */
    int64_t first_sent;    /* 0: never, in any life */
};

struct log {
    struct entry entries[LOG_MAX];
    int first;         /* entries before it went with the topic that was deleted */
    int generation;    /* of the log that is there now */
    bool stale;        /* committed: by somebody who did not yet know that the log is another one */
    bool undone;       /* the last commit took an heir's back */
    int count;         /* entries there */
    int visible;       /* of these, produced so far */
    int64_t committed; /* -1: nothing */
    char metadata[OFFSET_MAP_CHARS_MAX + 1];
};

struct parked_record {
    int key;
    char *value; /* NULL: tombstone */
    int64_t epoch;
    bool late; /* its writer had lost the partition and did not know it */
};
struct parked_log {
    struct parked_record *records;
    int count, room;
};

/* A record in a process's memory; its address is what the engine knows as ref. */
struct held {
    struct entry *entry;
    struct stream *stream;
    uint64_t serial;
    bool worked;              /* there was a request or a dead letter: not already complete by the map */
    bool skip;                /* as its truth was when it was read */
    struct delivery *burying; /* its dead letter that has no answer yet */
    bool condemned;           /* it was asked for before: one that failed is not decided on again */
    size_t bytes;
    char *key, *id; /* on the heap of their own, so that a sanitizer sees a use after release */
};

/* A partition as one process has it. */
struct stream {
    bool assigned, open, revoked, drained; /* open: the parked keys are read */
    int feed;
    enum stream_kind kind; /* of it */
    int partition, number; /* number: what the engine calls it */
    uint64_t serial;       /* of this assignment; answers to an earlier one are dropped */
    int64_t position, assigned_at;
    int generation;                 /* of the log that its engine has seen */
    bool paused, fetching, met_end; /* met_end: its reader, in one-shot mode, knows where the log ends */
    bool full; /* by what it holds: a limit of its own was reached, not half free again */
    int held;
    size_t held_bytes;
    bool commit_out, commit_failed;
    int64_t last_commit, commit_answered_at, revoked_at;
    int64_t completed_at;    /* the oldest completion that no commit was asked for yet; 0: none */
    int64_t unsafe_at;       /* the oldest delivery that no commit is known to cover; 0: none */
    int64_t unsafe_later_at; /* and that no commit was asked for since; 0: none */
};

/* A request that left, for what may leave within a time. */
struct sent {
    int64_t at;
    size_t bytes;
    bool again, probe;
};

/* What the answers that a process had say of the API. */
struct outage_seen {
    int in_a_row; /* failures, with no other answer between */
    bool known;   /* enough of them, or its credentials were refused: what is sent from here on is a probe */
    int failed_probes;
    int64_t not_before; /* the next one */
};

/* What the answers that a process had say of one endpoint: with both it may be in doubt, as one that fails while others are served. */
struct endpoint_seen {
    bool fails, others_served; /* since it served last */
};

/* What one answer said of the API while the breaker was closed. */
struct answer_seen {
    int64_t at;
    bool failed, slow;
    bool counts; /* a 429 may say nothing */
};

/* A partition as a process of an incremental group sees it. */
enum part { PART_NONE, PART_LOADING, PART_HELD, PART_LEAVING, PART_GIVEN_UP };

enum node_state { NODE_DEAD, NODE_JOINING, NODE_RUNNING, NODE_REVOKING, NODE_STOPPING };

struct node {
    int index;
    enum node_state state;
    uint64_t life; /* of this process, unique in the world; 0: none */
    struct engine *engine;
    int64_t stalled_until;
    bool mute;              /* while it stalls: what it has written and not sent waits as well */
    int64_t clock_ahead_ns; /* of its clock on the wall */
    uint64_t timer;         /* the one timer that counts */
    uint64_t join;          /* which of its joins an assignment answers */
    uint64_t generation;    /* the join that its assignment answers; commits name it */
    int64_t next_due;
    struct stream streams[FEEDS * PARTITIONS_MAX]; /* by node_slot */
    struct held *held[HELD_MAX];
    int held_count;
    struct request *requests; /* in flight, as this process sees it */
    int in_flight;
    uint64_t successes[ROUTES_MAX]; /* deliveries that its engine knows of, by endpoint */
    struct endpoint_seen endpoints[ROUTES_MAX];
    int64_t throttled_until;
    int refusals; /* requests in a row that were refused without a time, and how long the pause may last for it */
    int64_t refused_until;
    struct sent sent[SENT_MAX]; /* a ring */
    uint64_t sent_count;
    struct outage_seen outage;
    struct answer_seen answers[ANSWERS_MAX]; /* a ring: since the breaker is closed */
    int answer_count;
    int64_t unsure_until;           /* the operator has interfered: the engine may count others */
    int limit;                      /* on requests at once, as its engine told it after the last facts */
    enum breaker_override override; /* what the operator said last */
    bool on_hold;
    int64_t token_at; /* until then all requests wait for a token */
    int64_t produced_until
        [2][PARTITIONS_MAX]; /* by kind of letter: its producer's last record there is stored then */
    bool static_member;
    enum part part[PARTITIONS_MAX];  /* of an incremental group */
    uint64_t ticket[PARTITIONS_MAX]; /* which loading of the partition counts */
    unsigned list;                   /* the topics it reads, a bit for each */
    unsigned taken[PARTITIONS_MAX];  /* of each number those that it takes on */
    bool job;                        /* in one-shot mode, and begun again and again */
    struct goal *goal;               /* of the run */
    enum goal_state said;
    int64_t began_at, events_max, time_max_ns;
    struct seen {
        int64_t end; /* of what was there when it began */
        int generation;
    } seen[FEEDS][PARTITIONS_MAX];
};

struct member {
    bool in, joined;
    uint64_t join;
    uint64_t life;
    unsigned list;
};
struct group {
    struct member members[NODES_MAX];
    bool preparing;
    uint64_t rebalance; /* number of the one under way */
    /* By group_part: */
    int owner[PARTS_MAX];           /* node, -1: nobody */
    uint64_t generation[PARTS_MAX]; /* node.generation of the owner */
    int target[PARTS_MAX];          /* incremental: who shall have it, -1: nobody */
    int64_t asked_at[PARTS_MAX];    /* incremental: since when its owner shall give it up; 0: it need not */
};

/* One event in a parcel. */
struct request {
    struct request *next;
    struct parcel *parcel;
    struct delivery *d;
    struct held *held; /* NULL once released */
    struct entry *entry;
    struct truth *truth;
    int feed;
    enum stream_kind kind; /* of it */
    struct node *node;
    uint64_t life, assignment;
    bool over;              /* answered, timed out, cancelled, or its process died: nobody listens */
    bool dispatched_closed; /* sent with the breaker closed: its failure may be counted */
    bool success;           /* the answer under way is one */
    bool executed;
    bool met_trace;        /* its precondition failed, by an earlier sending of its own */
    struct outcome answer; /* to it; to the whole parcel unless it speaks of items */
};

/* A request as it goes over the wire: of one event, or of a batch. */
struct parcel {
    struct parcel *all;
    struct batch *batch; /* NULL: of one event, in the old way */
    struct node *node;
    uint64_t life;
    int count, live; /* live: members that somebody waits for */
    bool by_item;
    bool probe; /* it left when the API was known to be down */
    int64_t sent_at;
    bool waits;           /* for a token or a connection */
    bool renewed, resent; /* with another token; it was sent twice with the token before */
    int sendings;         /* with this token */
    int64_t times_out_at; /* CLOCK_NEVER: it is not sent */
    struct outcome answer;
    struct request *members; /* count of them, in order */
};

/* A message to the broker: a dead letter, a parked state or a commit. */
struct letter {
    struct letter *all;
    enum { LETTER_BURY, LETTER_PARK, LETTER_COMMIT } kind;
    int node;
    uint64_t life;
    bool settled, ok;  /* settled: the broker has it, or never will */
    struct held *held; /* BURY: only to be compared, together with held_serial */
    uint64_t held_serial;
    struct entry *entry;
    struct delivery *d;
    uint64_t token; /* PARK */
    int partition, key;
    int64_t epoch;         /* PARK */
    char *text;            /* the parked value or the metadata */
    struct stream *stream; /* COMMIT */
    uint64_t stream_serial, ok_order, generation;
    int generation_of_log; /* COMMIT: that its engine has seen */
    int64_t offset;
};

enum mood { MOOD_REFUSES, MOOD_503, MOOD_HANGS, MOOD_500, MOOD_AUTH, MOOD_FINE };
struct outage {
    int64_t from, to;
    int mood;
};

struct plan {
    int endpoint_down; /* this one fails until the world is calm */
    int endpoint_mood; /* and how */
    int key_refusal;   /* the status of a key that is refused */
    int common_topic;  /* in the list of every member; -1: each has two of three */
    int topics, partitions, keys, events, nodes, fetch_max;
    uint64_t faults;
    struct engine_config cfg;
    int64_t calm_at, session_ns, rebalance_ns, request_timeout_ns;
    int64_t latency_ns; /* of the API, on a good day */
    double intensity;   /* of the faults that come by chance */
    struct outage outages[OUTAGES_MAX];
    int outage_count;
    bool sleepers; /* a world of FAULT_ZOMBIE and what it needs */
    bool crammed;  /* a world of FAULT_FEW_PARKED: what waits for the one place may fill the total */
    int failing_key;
    uint64_t kind_stride; /* of the batchable kinds: by it they have bins of their own, or share one */
    int crowd;            /* more requests at once than this and the API slows down */
    bool compacted;
    struct verdict_rule rules[2];
};

struct world {
    struct sim *sim;
    struct plan plan;
    struct rng rng, fault_rng[FAULT_COUNT];
    struct truth events[EVENTS_MAX];
    struct log logs[FEEDS][PARTITIONS_MAX];
    struct parked_log parked[PARTITIONS_MAX];
    struct node nodes[NODES_MAX];
    struct group group;
    struct parcel *all_parcels;
    struct letter *all_letters;
    uint64_t lives, serials, ok_order;
    bool calm;   /* no fault any more */
    bool mended; /* the API takes also what it rejected */
    /* Of these keys a process that did not yet know that its partition was given away wrote the parked state: it may name an event whose
     * replay its heir has delivered. */
    bool overwritten[KEYS_MAX];
};

enum happening_kind {
    HAPPEN_PRODUCE,
    HAPPEN_FAULT,
    HAPPEN_CALM,
    HAPPEN_START,
    HAPPEN_GROUP_JOIN,
    HAPPEN_GROUP_NOTICE,
    HAPPEN_GROUP_DEADLINE,
    HAPPEN_GROUP_ASSIGN,
    HAPPEN_GROUP_SESSION,
    HAPPEN_GROUP_RELEASED,
    HAPPEN_LOADED,
    HAPPEN_OPENED,
    HAPPEN_FETCHED,
    HAPPEN_TIMER,
    HAPPEN_LOST,
    HAPPEN_DEPARTS,
    HAPPEN_ARRIVED,
    HAPPEN_ANSWERED,
    HAPPEN_TIMED_OUT,
    HAPPEN_LETTER_STORED,
    HAPPEN_LETTER_ANSWERED,
    HAPPEN_COMMIT_STORED,
    HAPPEN_COMMIT_ANSWERED,
    HAPPEN_OPERATOR_GONE,
    HAPPEN_JOB_TIME,
    HAPPEN_JOB_OVER
};

/* ---- worker_plan ---- */
void *world_build(struct sim *s);
/* Does this fault strike now? Never in a calm world or where the plan leaves it out. */
bool world_strikes(struct world *w, enum fault f, double probability);
bool world_has(const struct world *w, enum fault f);
int64_t world_delay(struct world *w, int64_t low, int64_t high);

/* ---- worker_broker ---- */
void broker_produce(struct world *w, int topic, int partition);
void broker_replay(struct world *w, int event);
/* The topic is deleted and made anew, whatever of it is under way. */
void broker_anew(struct world *w, int topic, int partition);
/* One past the last offset there. */
int64_t broker_end(const struct log *log);
void broker_fetch(struct world *w, struct node *n, struct stream *st);
void broker_bury(struct world *w, struct node *n, struct delivery *d, struct held *held);
void broker_park(struct world *w, struct node *n, const struct action *a);
void broker_commit(struct world *w, struct node *n, struct stream *st, const struct action *a);
void broker_letter_stored(struct world *w, struct happening h);
void broker_letter_answered(struct world *w, struct happening h);
void broker_commit_stored(struct world *w, struct happening h);
void broker_commit_answered(struct world *w, struct happening h);
/* The process dies or gives the partition up. */
void broker_hang_up(struct world *w, struct node *n, int partition);
void broker_forget(struct world *w);

/* ---- worker_group ---- */
void group_begin(struct world *w);
void group_rebalance(struct world *w);
void group_join(struct world *w, struct node *n);
void group_leave(struct world *w, struct node *n);
void group_arrived(struct world *w, struct happening h);
void group_deadline(struct world *w, struct happening h);
void group_session(struct world *w, struct happening h);
void group_dead(struct world *w, struct node *n);
static inline int group_part(int topic, int partition)
{
    return topic * PARTITIONS_MAX + partition;
}
bool group_fences_topic(const struct world *w, int node, uint64_t generation, int topic, int partition);
/* Of a number: it is not this member's, of at least one topic that it reads. */
bool group_fences(const struct world *w, int node, uint64_t generation, int partition);

/* ---- worker_incremental ---- */
bool group_is_incremental(const struct world *w);
void incremental_rebalance(struct world *w);
void incremental_joined(struct world *w, int node);
void incremental_released(struct world *w, struct happening h);
/* Who has had the part for too long after it was asked back; -1: nobody. */
int incremental_late(const struct world *w, int part);
void incremental_reconcile(struct world *w, struct node *n);
/* Let go of the partitions that have drained. */
void incremental_drained(struct world *w, struct node *n);

/* ---- worker_node ---- */
/* The loop's one round after facts: time passes, actions are carried out, the next wake-up is set. */
void node_turn(struct world *w, struct node *n);
void node_fetched(struct world *w, struct node *n, struct happening h);
void node_feed(struct world *w, struct node *n, struct stream *st, struct entry *en);
struct stream *node_stream(struct node *n, int number);
/* Where a process has this partition. */
struct stream *node_slot(struct node *n, int feed, int partition);
void node_want(struct world *w, struct node *n, struct stream *st);
bool node_holds(const struct node *n, const struct held *held);
struct truth *truth_of(struct world *w, const struct entry *en);

/* ---- worker_member ---- */
void member_start(struct world *w, struct node *n);
void member_notice(struct world *w, struct node *n);
void member_assigned(struct world *w, struct node *n, uint64_t join);
void member_loaded(struct world *w, struct node *n, struct happening h);
void member_opened(struct world *w, struct node *n, struct happening h);
void member_drained(struct world *w, struct node *n);
void member_lost(struct world *w, struct node *n);
void member_stop(struct world *w, struct node *n);
/* Of one partition: it shall drain; it is gone. */
void member_revoke(struct world *w, struct node *n, int partition);
void member_lose(struct world *w, struct node *n, int partition, bool clean);
/* A step of taking the partition on, unless it is out of date by then. */
void member_later(struct world *w, struct node *n, enum happening_kind kind, int partition, int64_t low,
                  int64_t high);
void member_kill(struct world *w, struct node *n);
void member_stall(struct world *w, struct node *n);
/* With what it has just written, until its session is over and others are at work. */
void member_oversleep(struct world *w, struct node *n);

/* ---- worker_parcel ---- */
/* The record behind a delivery that an action names, after a look at whether the engine shows it as it is. */
struct held *node_held_of(struct world *w, struct node *n, const struct delivery_view *v);
void parcel_send(struct world *w, struct node *n, const struct action *a);
void parcel_cancel(struct world *w, struct node *n, struct delivery *d);
void parcel_mail(struct world *w, struct parcel *p, enum happening_kind kind, int64_t delay);
void parcel_answered(struct world *w, struct parcel *p);
void parcel_timed_out(struct world *w, struct parcel *p);
/* It ended without an answer, after it was sent. */
void parcel_broke_off(struct world *w, struct parcel *p, enum transport transport);
/* It must not be sent any more, and was not. The node's turn is the caller's. */
void parcel_held_back(struct world *w, struct parcel *p);
void parcel_node_died(struct world *w, struct node *n);
void parcel_forget(struct world *w);

/* ---- worker_depart ---- */
void depart_begins(struct world *w, struct parcel *p);
void depart_comes(struct world *w, struct parcel *p); /* it has its token and its connection */
/* The door's loop looks at its connections between two facts, before it carries out what follows from them. */
void depart_between(struct world *w, struct node *n);
/* The connection has ended without an answer: it goes out once more. */
void depart_again(struct world *w, struct parcel *p, int64_t delay);
/* Its token was refused, and it waits for another one. */
bool depart_renews(struct world *w, struct parcel *p);

/* ---- worker_api ---- */
void api_leaves(struct world *w, struct parcel *p); /* it is on its way */
void api_arrived(struct world *w, struct parcel *p);

/* ---- worker_job ---- */
/* A run begins with a look; false: nothing is there, and that was all. */
bool job_begins(struct world *w, struct node *n);
void job_ends(struct node *n);
void job_later(struct world *w, struct node *n);
void job_assigned(const struct node *n, const struct stream *st);
/* A fetch has brought what there was: does the reader know the end? */
void job_read(const struct world *w, struct node *n, struct stream *st);
/* Is it over? Looks also whether it may say so. */
void job_turn(struct world *w, struct node *n);
void job_leaves(struct world *w, const struct node *n, const struct stream *st);
void job_all_begin(struct world *w);
void job_all_ended(struct world *w);

/* ---- worker_lists ---- */
bool lists_has(unsigned list, int topic);
void lists_draw(struct world *w, struct node *n);
/* The topics of which the group gave it this number; may it take it on? */
unsigned lists_given(const struct world *w, const struct node *n, int p);
enum whole lists_whole(const struct world *w, const struct node *n, int p);
/* Looks whether nobody else is at work on the number. */
void lists_takes(struct world *w, const struct node *n, int p);
int lists_apart(const struct world *w, const struct node *n);
void lists_roll_out(struct world *w);

/* ---- worker_operator ---- */
void operator_interferes(struct world *w, struct node *n);
void operator_goes_home(struct world *w); /* everything will be automatic again */
void operator_gone(struct world *w, struct node *n);

/* ---- worker_limits: the oracle of pace, retry budget and the limit on requests at once ---- */
/* The facts are told: from now on this many may be under way. */
void limits_told(struct node *n);
void limits_sends(struct world *w, struct node *n, const struct parcel *p);
void limits_answered(struct world *w, const struct node *n, const struct parcel *p);
void limits_bounds(struct world *w, const struct node *n);
/* The engine was told of the answer; heard: its members that were still waited for. */
void limits_pauses(struct world *w, struct node *n, const struct parcel *p, const bool *heard);

/* ---- worker_outage: the oracle of the breaker ---- */
void outage_sends(struct world *w, const struct node *n, struct parcel *p);
/* Its engine has heard the answer; was_closed: the breaker, before that. */
void outage_answered(struct world *w, struct node *n, const struct parcel *p, bool was_closed);
void outage_forget(struct node *n);
void outage_interfered(const struct world *w, struct node *n);
/* By its answer: nothing in it shows an API that works. */
bool outage_is_failure(const struct parcel *p);

/* ---- worker_oracle ---- */
void oracle_sends(struct world *w, struct node *n, struct request *r);
/* It really leaves. */
void oracle_departs(struct world *w, struct node *n, const struct request *r);
/* Its engine was told that an attempt may have been executed. */
void oracle_doubts(struct request *r);
void oracle_executes(struct world *w, struct request *r);
void oracle_answered(struct world *w, struct node *n, struct request *r, bool breaker_closed);
/* An answer, or one to an item, may ask for a pause. */
void oracle_asked(const struct world *w, struct node *n, const struct outcome *answer);
void oracle_buries(struct world *w, struct node *n, const struct delivery_view *v, struct held *held);
/* What st holds has changed. */
void oracle_holds(const struct world *w, struct stream *st);
void oracle_releases(struct world *w, struct node *n, struct held *held);
void oracle_commits(struct world *w, struct node *n, struct stream *st, const struct action *a);
/* It is known to cover what was complete when it was asked for. */
void oracle_commit_made(struct stream *st);
void oracle_committed(struct world *w, struct log *log, uint64_t life, uint64_t ok_order);
void oracle_unread(struct world *w, struct log *log, int64_t from);
/* A process gives a partition up. clean: after DRAINED, and nothing that it committed last was refused. */
void oracle_leaves(struct world *w, struct node *n, struct stream *st, bool clean);
/* The group gave its partitions away, and it does not know yet: it and its heir may both execute anything there. */
void oracle_evicted(struct world *w, struct node *n);
/* A record of another log than those before came in: the commit must follow. */
void oracle_log_begins(struct world *w, struct node *n, struct stream *st, const struct entry *en);
void oracle_bounds(struct world *w, struct node *n);
bool oracle_overwritten(const struct world *w, const struct truth *t);
/* Whether an entry needs nothing more: delivered, skipped, or its dead letter safe and its key parked. */
bool oracle_done(struct world *w, enum stream_kind kind, const struct entry *en);
bool oracle_all_done(struct world *w);
void oracle_ends(struct world *w);
