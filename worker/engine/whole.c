/* Of two members with a topic in common only one has it of a number, so that only one has the number whole. */
#include "worker/engine/whole.h"

enum whole whole_number(int given, int topics, bool held)
{
    if (held)
        return WHOLE_HELD;
    if (given == 0)
        return WHOLE_NOTHING;
#ifdef SIM_BUG_TAKE_A_PART
    return WHOLE_TAKE;
#endif
    return given == topics ? WHOLE_TAKE : WHOLE_APART;
}
