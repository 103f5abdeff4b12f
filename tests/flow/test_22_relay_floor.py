"""The sequence's row shows values ahead of what was drawn; the relay's floor allows for it."""
import re
import threading
from pathlib import Path

import psycopg

SOURCE = Path(__file__).resolve().parents[2] / "producer" / "relay" / "relay_table.c"
AHEAD = """DO $$
DECLARE shown bigint; drawn bigint;
BEGIN
    FOR i IN 1..2000 LOOP
        SELECT last_value INTO shown FROM tandem.outbox_id_seq;
        drawn := nextval('tandem.outbox_id_seq');
        IF drawn <= shown THEN RAISE NOTICE 'ahead %', shown - drawn + 1; END IF;
    END LOOP;
END $$"""


def test_a_value_drawn_after_a_look_is_above_the_floor_also_while_the_sequence_shows_values_ahead(database, wait_until):
    margin = int(re.search(r"ELSE last_value - 1 END - (\d+)", SOURCE.read_text(encoding="utf-8")).group(1))
    ahead, stop = [], threading.Event()

    def draw():
        with psycopg.connect(database.url, autocommit=True) as connection:
            while not stop.is_set():
                connection.execute("SELECT count(nextval('tandem.outbox_id_seq')) FROM generate_series(1, 2000)")

    looker = database.connect()
    looker.add_notice_handler(lambda notice: ahead.append(int(notice.message_primary.split()[1])))
    threads = [threading.Thread(target=draw) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: looker.execute(AHEAD) and len(ahead) >= 20, 60, "the sequence is seen ahead 20 times")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert max(ahead) <= margin
