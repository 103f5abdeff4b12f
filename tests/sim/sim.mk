# The simulator and its mutants: the same cores, built alone, without any foreign library.

SIM_CORES := $(CORES) $(addprefix common/,err.c buf.c clock.c event.c utf8.c)
SIM_ALL   := $(SIM) $(SIM_CORES)
SIM_RELAY := $(if $(wildcard tests/sim/relay_world.c),-DSIM_WITH_RELAY)
SEEDS     ?= 2000

$(B)/bin/sim: $(call objs,$(SIM_ALL))
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ -lm
$(call objs,$(SIM)): override CFLAGS += $(SIM_RELAY)

sim: $(B)/bin/sim ## run SEEDS (2000) seeds of the simulated worlds against each core
	$< --kept tests/sim/seeds.txt --seeds $(SEEDS)

# A mutant is the simulator's own build of everything with one deliberate bug; each must be found within 1,000 seeds.
MUTANTS_WORKER := COMMIT_TOO_FAR FORGET_LANE COUNT_WHILE_OPEN COMPLETE_BEFORE_BURIED \
                    RETRY_AFTER_OF_ONE PAUSE_BY_ITS_EVENT NEVER_OPENS SENDS_OVER_LIMIT LIMIT_BELOW_FLOOR LIMIT_ABOVE_CAP IGNORE_BUDGET FOREIGN_SUCCESS EVICT_IN_TRAFFIC \
                    PAUSED_IS_FULL VERDICT_HIDES_WAIT REASON_LOST BISECT_LOSES_TAIL BATCH_TWO_OF_A_KEY ITEM_RESULTS_SHIFTED DONE_FOR_ALL PLENTY_FOR_EVER \
                    BEFORE_PARKED_KEYS FULL_KEEPS_REPLAYS_OUT PARKED_IN_ONE_TOPIC COMMIT_OF_ANOTHER_TOPIC OLD_POSITION_IN_A_NEW_LOG \
                    LOST_WITH_ANOTHER OLD_LEDGER_IN_A_NEW_LOG UNCOMMITTED_OF_A_GONE_LOG \
                    COMMIT_OF_A_LOST_PARTITION PARKED_KEY_FORGOTTEN PARKED_STATE_OF_A_ZOMBIE REPLAY_OVERTAKES SKIPPED_STAYS_PARKED \
                    SENDS_UNREMEMBERED SENDS_ANYWAY RESENT_UNSEEN NO_SHARE_TRIP NO_SLOW_TRIP \
                    REFUSED_IS_ALONE DOUBT_WITHOUT_PROOF NO_PLACE_IN_DOUBT \
                    END_MET_BEFORE READ_IS_DONE DONE_BEFORE_ASSIGNED TAKE_A_PART
MUTANTS_RELAY  := $(if $(SIM_RELAY),CONFIRM_EARLY FORGET_EPOCH KEEPALIVE_OUTSTANDING RESUME_BY_LSN TRUST_LEASE_CLOCK \
                    COMMIT_BEFORE_PARK CAUGHT_UP_TOO_SOON RETRY_OVERTAKES SHARD_OVERLAP PASSED_IS_SETTLED \
                    RECORD_OUTSIDE FORGIVE_NEXT OVERLAP_RETRY STORE_HALF_A_ROUND \
                    END_AS_A_ZOMBIE PARKED_WHILE_LOADING SOME_KEYS_ARE_ALL \
                    HALF_ANEW HALF_BESIDE_FORGOTTEN PASSED_IS_NOTHING LEAVES_WITH_ROWS_OUT \
                    SLOT_GOES_BACK STOP_KEEPS_HALF_A_ROUND CLIENT_OUTLIVES_LEASE)
MUTANTS        := $(MUTANTS_WORKER) $(MUTANTS_RELAY)

define mutant
$(B)/sim/$(1)/%.o: %.c
	@mkdir -p $$(@D)
	$$(CC) $$(CFLAGS) $(SIM_RELAY) -DSIM_BUG_$(1) -c -o $$@ $$<
$(B)/sim/mutant_$(1): $(patsubst %.c,$(B)/sim/$(1)/%.o,$(SIM_ALL))
	@mkdir -p $$(@D)
	$$(CC) $$(LDFLAGS) -o $$@ $$^ -lm
-include $(patsubst %.c,$(B)/sim/$(1)/%.d,$(SIM_ALL))
endef
# Thousands of rules: make takes seconds to read them, so only who asks for mutants does.
ifneq ($(filter sim-mutants $(B)/sim/mutant_%,$(MAKECMDGOALS)),)
$(foreach m,$(MUTANTS),$(eval $(call mutant,$(m))))
endif

sim-mutants: $(B)/bin/sim $(addprefix $(B)/sim/mutant_,$(MUTANTS)) ## the simulator finds each deliberate bug
	$(B)/bin/sim --seeds 1000
	@failed=0; for m in $(MUTANTS); do \
	    case " $(MUTANTS_RELAY) " in *" $$m "*) core=relay ;; *) core=worker ;; esac; \
	    printf 'sim: mutant %s: ' "$$m"; \
	    $(B)/sim/mutant_$$m --core $$core --seeds 1000 --expect-broken || failed=1; \
	done; exit $$failed
.PHONY: sim-mutants
