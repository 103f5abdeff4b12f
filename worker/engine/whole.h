/* Decides which partition numbers a member takes on: those of which it has every topic of its list (decision D45). */
#pragma once

#include <stdbool.h>

/* Of one number: nothing is ours, what there is waits for the others, it may be taken, it is at work. */
enum whole { WHOLE_NOTHING, WHOLE_APART, WHOLE_TAKE, WHOLE_HELD };

/* given: of how many of the topics in its list the group gave the member this number; topics: how many there are. */
enum whole whole_number(int given, int topics, bool held);
