/* tandem-inventory: the worker with the Inventory API as its target. */
#include "worker/worker.h"

int main(int argc, char **argv)
{
    return worker_main(&inventory_target, argc, argv);
}
