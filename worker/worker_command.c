/* The operator's commands by their words and by their paths. */
#include "worker/worker_command.h"

#include <stdio.h>
#include <string.h>

static const char *const paths[COMMAND_COUNT] = {
#define X(id, words, path, prose) [COMMAND_##id] = (path),
    WORKER_COMMANDS(X)
#undef X
};

int worker_command_at(const char *path)
{
    for (int i = 0; *path == '/' && i < COMMAND_COUNT; i++) {
        if (strcmp(path + 1, paths[i]) == 0)
            return i;
    }
    return -1;
}

bool worker_command_take_json(int *argc, char **argv)
{
    int kept = 1;

    for (int i = 1; i < *argc; i++)
        if (strcmp(argv[i], "--json") != 0)
            argv[kept++] = argv[i];
    bool found = kept < *argc;
    *argc = kept;
    argv[kept] = NULL;
    return found;
}

int worker_command_of(const char *const *words, size_t count, bool json)
{
    char path[64];

    if (count < 1 || count + json > COMMAND_WORDS_MAX)
        return -1;
    const char *second = json ? "json" : count == 2 ? words[1] : "";
    int n = snprintf(path, sizeof path, "/%s%s%s", words[0], *second ? "/" : "", second);
    return n > 0 && (size_t)n < sizeof path ? worker_command_at(path) : -1;
}

const char *worker_command_path(enum worker_command command)
{
    ENSURE((unsigned)command < COMMAND_COUNT);
    return paths[command];
}
