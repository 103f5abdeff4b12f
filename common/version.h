/* The version of everything in this tree, and the schema version that the programs need. */
#pragma once

#define TANDEM_VERSION "0.1.0"
#define TANDEM_SCHEMA_VERSION 5 /* the highest number in migrations/ */
