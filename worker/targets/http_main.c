/* tandem-http: the worker with a target made of its configuration. */
#include "worker/targets/http_target.h"
#include "worker/worker.h"

int main(int argc, char **argv)
{
    return worker_main(&http_target, argc, argv);
}
