/* tandem-crm: the worker with the CRM API as its target. */
#include "worker/worker.h"

int main(int argc, char **argv)
{
    return worker_main(&crm_target, argc, argv);
}
