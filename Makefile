# Tandem: every command of the project. `make help` lists them.
SHELL := /bin/bash
Q := $(if $(V),,@)
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

CC     ?= gcc
SAN    ?=
comma  := ,
B      := build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))
PREFIX ?= /usr/local

WARN := -Wall -Wextra -Wpedantic -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual \
        -Wwrite-strings -Wformat=2 -Wundef -Wvla -Wswitch-enum -Wimplicit-fallthrough -Wconversion -Wnull-dereference
OPT  := $(if $(SAN),-O1 -fno-omit-frame-pointer -fsanitize=$(SAN) -fno-sanitize-recover=all,-O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
override CFLAGS   += -std=c17 -D_GNU_SOURCE -g $(OPT) $(WARN) -fno-common -fstack-protector-strong -fPIC -MMD -MP -I.
override LDFLAGS  += $(if $(SAN),-fsanitize=$(SAN)) -Wl,-z,relro,-z,now
PKGS := rdkafka libcurl jansson libpq libmicrohttpd libcrypto
override CFLAGS += $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm -lpthread

objs = $(patsubst %.c,$(B)/obj/%.o,$(1))

COMMON := $(wildcard common/*.c)
OUTBOX := producer/outbox.c producer/outbox_row.c
RELAY  := $(filter-out %_main.c,$(wildcard producer/relay/*.c producer/relay/core/*.c))
# A target is NAME_target.c and NAME_main.c in worker/targets: then there is a program tandem-NAME.
TARGETS := $(patsubst worker/targets/%_main.c,tandem-%,$(wildcard worker/targets/*_main.c))
HTTP   := $(filter-out %_main.c,$(wildcard worker/targets/http_*.c)) worker/targets/template.c
WORKER := $(filter-out %_main.c $(HTTP),$(wildcard worker/*.c worker/engine/*.c worker/targets/*.c))
DLQ    := $(filter-out %_main.c,$(wildcard worker/dlq/*.c))
ORDERS := $(wildcard producer/example/*.c)
APIS   := $(wildcard tests/rig/*.c)
SIM    := $(wildcard tests/sim/*.c)
UNIT   := $(wildcard tests/unit/test_*.c)
CORES  := $(wildcard worker/engine/*.c producer/relay/core/*.c)

BIN := tandem-relay $(TARGETS) tandem-dlq orders-service inventory-api crm-api
LIB := $(B)/lib/libtandem-outbox.a $(B)/lib/libtandem-outbox.so.0

all: $(addprefix $(B)/bin/,$(BIN)) $(LIB) ## build the programs and the library

$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -c -o $@ $<
$(B)/lib/common.a: $(call objs,$(COMMON))
	@mkdir -p $(@D)
	@rm -f $@
	ar rcs $@ $^
$(B)/obj/producer/outbox.o $(B)/obj/producer/outbox_row.o: override CFLAGS += -fvisibility=hidden
$(B)/lib/libtandem-outbox.a: $(call objs,$(OUTBOX))
	@mkdir -p $(@D)
	@rm -f $@
	ar rcs $@ $^
$(B)/lib/libtandem-outbox.so.0: $(call objs,$(OUTBOX))
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -shared -Wl,-soname,libtandem-outbox.so.0 -o $@ $^ $(shell pkg-config --libs libpq)
	ln -sf libtandem-outbox.so.0 $(B)/lib/libtandem-outbox.so

define program
$(B)/bin/$(1): $(call objs,$(2)) $(B)/lib/common.a $(3)
	@mkdir -p $$(@D)
	$(CC) $(LDFLAGS) -o $$@ $$^ $$(LIBS)
endef
$(eval $(call program,tandem-relay,$(RELAY) producer/relay/relay_main.c))
$(foreach t,$(TARGETS),$(eval $(call program,$(t),$(WORKER) $(if $(filter %-http,$(t)),$(HTTP)) worker/targets/$(t:tandem-%=%)_main.c)))
$(B)/bin/tandem-http: LIBS += -ljq
$(eval $(call program,tandem-dlq,$(DLQ) worker/dlq/dlq_main.c $(wildcard worker/engine/*.c)))
$(eval $(call program,orders-service,$(ORDERS),$(B)/lib/libtandem-outbox.a))
$(eval $(call program,inventory-api,$(filter-out %/crm_api.c,$(APIS))))
$(eval $(call program,crm-api,$(filter-out %/inventory_api.c,$(APIS))))

# Unit tests: one program per file, linked with everything that is not a main.
ALL_PARTS := $(RELAY) $(WORKER) $(HTTP) $(DLQ) $(OUTBOX)
$(B)/lib/parts.a: $(call objs,$(ALL_PARTS))
	@mkdir -p $(@D)
	@rm -f $@
	ar rcs $@ $^
$(B)/unit/%: $(B)/obj/tests/unit/%.o $(B)/lib/parts.a $(B)/lib/common.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS) -ljq $(shell pkg-config --libs cmocka)
$(B)/flow/%: $(B)/obj/tests/flow/%.o $(B)/lib/libtandem-outbox.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS) $(shell pkg-config --libs cmocka)
unit: $(patsubst tests/unit/%.c,$(B)/unit/%,$(UNIT))
FLOW := outbox_client outbox_pipeline outbox_emit outbox_memory
flow: $(addprefix $(B)/flow/,$(FLOW)) $(LIB) ## build the C programs of the flow tests

# A file older than the schema is left out: it would bring back what a newer one has replaced.
migrate: ## apply migrations/*.sql to DATABASE_URL, in order; safe to repeat
	@test -n "$(DATABASE_URL)" || { echo 'make migrate: give DATABASE_URL=postgresql://…' >&2; exit 100; }
	@set -e; have=$$(psql -AtqX -d "$(DATABASE_URL)" -c 'SELECT max(version) FROM tandem.schema_version' 2>/dev/null) || have=0; \
	for f in migrations/[0-9]*.sql; do \
	    n=$${f#migrations/}; n=$${n%%_*}; \
	    if [ "$$n" -lt "$${have:-0}" ]; then continue; fi; \
	    PGOPTIONS="$$PGOPTIONS -c client_min_messages=warning" psql -qX -v ON_ERROR_STOP=1 -d "$(DATABASE_URL)" -f "$$f"; done

VERSION := $(shell sed -n 's/^\#define TANDEM_VERSION "\(.*\)"/\1/p' common/version.h)
install-outbox: $(LIB) ## install libtandem-outbox for services: <tandem/outbox.h>, pkg-config tandem-outbox
	install -d "$(DESTDIR)$(PREFIX)/lib/pkgconfig" "$(DESTDIR)$(PREFIX)/include/tandem"
	install -m 644 $(B)/lib/libtandem-outbox.a "$(DESTDIR)$(PREFIX)/lib/"
	install -m 755 $(B)/lib/libtandem-outbox.so.0 "$(DESTDIR)$(PREFIX)/lib/"
	ln -sf libtandem-outbox.so.0 "$(DESTDIR)$(PREFIX)/lib/libtandem-outbox.so"
	install -m 644 producer/outbox.h "$(DESTDIR)$(PREFIX)/include/tandem/"
	sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' producer/outbox.pc.in >"$(DESTDIR)$(PREFIX)/lib/pkgconfig/tandem-outbox.pc"

deps: ## install what is missing: packages, Kafka, the tests' Python packages
	@tests/rig/deps.sh

# A make of its own where something is built after deps: pkg-config answers differently once the packages are there.
test: deps ## unit, sim, flow and faults; ends with "N passed, N failed"
	@tests/run
test-faults: deps ## kill -9, outages and restarts under load: [ONLY=relay|worker|…] [KILLS=n] [RESTARTS=n] [OUTAGE=seconds] [PAUSE=seconds] [SOURCE=table|…] [DELIVERY=…]
	@$(MAKE) --no-print-directory -s all
	@ONLY='$(ONLY)' KILLS='$(KILLS)' RESTARTS='$(RESTARTS)' OUTAGE='$(OUTAGE)' PAUSE='$(PAUSE)' SOURCE='$(SOURCE)' DELIVERY='$(DELIVERY)' build/venv/bin/pytest -q tests/faults
test-containers: deps ## the compose file for real: builds the images, three inventory workers share the partitions
	@tests/containers/run
test-trixie: ## on a bare Debian 13, in a container: unit tests, and failovers of Postgres 17, whose standby keeps the slot
	@tests/containers/bare trixie 'make -s deps && tests/run unit && ONLY=relay build/venv/bin/pytest -q -rP tests/faults/test_relay_failover.py'
demo: deps ## orders through everything, an outage, dead letters, their replay; ends with a table that adds up
	@$(MAKE) --no-print-directory -s all
	@build/venv/bin/python tests/rig/demo.py
STACK ?= build/stack
up: deps ## start the demo's stack and leave it running; build/stack/env has its addresses
	@$(MAKE) --no-print-directory -s all
	@build/venv/bin/python tests/rig/stack.py up --dir $(STACK)
down: ## stop what `make up` started, and remove its data
	@python3 tests/rig/rig stop --dir $(STACK) --wipe

bench: deps ## figures with CPU and memory of each part, into build/bench: [ONLY="producer relay worker chain"]
	@$(MAKE) --no-print-directory -s all build/bench/relay_probe build/bench/worker_probe build/bench/batch_sink
	@build/venv/bin/python tests/bench/bench --only '$(ONLY)'

build/bench/batch_sink: tests/bench/batch_sink.c worker/json_scan.c $(B)/lib/common.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)
build/bench/%_probe: tests/bench/%_probe.c $(B)/lib/common.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

check: ## all of it under sanitizers (SAN=address,undefined or thread), then lint
	@tests/lint/check $(SAN)
lint: all ## layout, static analysis, banned calls, foreign headers, manuals; PART=name for one
	@tests/lint/lint $(PART)
fmt: ## lay out all C files as .clang-format says
	git ls-files --cached --others --exclude-standard '*.[ch]' | xargs clang-format -i
docs: all ## write the OPTIONS of the manual pages anew
	@tests/lint/manuals --write

# Each tests/fuzz/fuzz_x.c is an entry point of libFuzzer; tests/fuzz/corpus/x holds its first inputs.
FUZZ         := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SECONDS ?= 20
FUZZ_SAN     := -fsanitize=address,undefined -fno-sanitize-recover=all
FUZZ_PARTS   := $(filter-out %_main.c,$(COMMON) $(ALL_PARTS))
build/fuzz/obj/%.o: %.c
	@mkdir -p $(@D)
	clang -std=c17 -D_GNU_SOURCE -g -O1 -MMD -MP -I. $(FUZZ_SAN) -fsanitize=fuzzer-no-link $(shell pkg-config --cflags $(PKGS)) -c -o $@ $<
build/fuzz/parts.a: $(patsubst %.c,build/fuzz/obj/%.o,$(FUZZ_PARTS))
	@rm -f $@
	ar rcs $@ $^
build/fuzz/fuzz_%: build/fuzz/obj/tests/fuzz/fuzz_%.o build/fuzz/parts.a
	clang -fsanitize=fuzzer $(FUZZ_SAN) -o $@ $^ $(LIBS) -ljq
fuzz: $(addprefix build/fuzz/,$(FUZZ)) ## each fuzz target for FUZZ_SECONDS (20)
	@set -e; for f in $(FUZZ); do found=build/fuzz/corpus/$$f; seeds=tests/fuzz/corpus/$${f#fuzz_}; mkdir -p $$found; \
	    build/fuzz/$$f -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 -verbosity=0 \
	        -artifact_prefix=build/fuzz/$$f- $$found $$(test ! -d $$seeds || echo $$seeds) >build/fuzz/$$f.log 2>&1 || \
	        { tail -60 build/fuzz/$$f.log; echo "fuzz: $$f failed"; exit 1; }; echo "fuzz: $$f passed"; done; \
	echo "fuzz: $(words $(FUZZ)) passed, 0 failed"
.SECONDARY: $(patsubst %,build/fuzz/obj/tests/fuzz/%.o,$(FUZZ))

PROGRAMS := tandem-relay $(TARGETS) tandem-dlq
MANUALS  := $(shell git ls-files '*.[1-8]' 2>/dev/null || find producer worker -name '*.[1-8]')
install: all install-outbox ## everything into DESTDIR and PREFIX: programs, library, header, manuals, migrations
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/share/tandem/migrations"
	install $(addprefix $(B)/bin/,$(PROGRAMS)) "$(DESTDIR)$(PREFIX)/bin"
	install -m 644 migrations/[0-9]*.sql "$(DESTDIR)$(PREFIX)/share/tandem/migrations"
	for m in $(MANUALS); do install -D -m 644 $$m "$(DESTDIR)$(PREFIX)/share/man/man$${m##*.}/$${m##*/}" || exit 1; done
	cd "$(DESTDIR)$(PREFIX)/share/man" && \
	    for name in put send emit emit_send version; do ln -sf outbox.3 man3/outbox_$$name.3 || exit 1; done; \
	    ln -sf ../man8/tandem-relay.8 man1/tandem-relay.1
clean: ## take away everything that was built
	rm -rf build
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(filter-out %.d,$(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | sort | awk -F'\t' '{printf "  make %-16s %s\n", $$1, $$2}'

include tests/sim/sim.mk

-include $(shell find $(B)/obj build/fuzz/obj -name '*.d' 2>/dev/null)
.PHONY: all unit flow deps demo up down test check sim bench fuzz lint fmt docs install install-outbox clean help migrate test-faults test-containers test-trixie
