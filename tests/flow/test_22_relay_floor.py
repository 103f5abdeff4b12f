"""The sequence's row shows values ahead of what was drawn; the relay's floor does not."""
import re
import threading
from pathlib import Path

import psycopg

SOURCE = Path(__file__).resolve().parents[2] / "producer" / "relay" / "relay_table_sql.c"
LOOK = """DO $do$
DECLARE shown bigint; snapshot text; floor bigint; drawn bigint; age integer; lsn pg_lsn;
BEGIN
    FOR i IN 1..2000 LOOP
        SELECT last_value INTO shown FROM tandem.outbox_id_seq;
        drawn := nextval('tandem.outbox_id_seq');
        IF drawn <= shown THEN RAISE NOTICE 'row %', shown - drawn + 1; END IF;
        EXECUTE $look$THE LOOK$look$ INTO snapshot, floor, age, lsn;
        drawn := nextval('tandem.outbox_id_seq');
        IF drawn <= floor THEN RAISE NOTICE 'floor %', floor - drawn + 1; END IF;
    END LOOP;
END $do$"""


def look_sql():
    """The relay's own statement."""
    literals = re.search(r"#define LOOK ([^;]*?)\n\n", SOURCE.read_text(encoding="utf-8")).group(1)
    return "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', literals))


def test_a_value_drawn_after_a_look_is_above_the_floor_also_while_the_sequence_shows_values_ahead(database, wait_until):
    ahead = {"row": 0, "floor": 0}
    stop = threading.Event()

    def draw():
        with psycopg.connect(database.url, autocommit=True) as connection:
            while not stop.is_set():
                connection.execute("SELECT count(nextval('tandem.outbox_id_seq')) FROM generate_series(1, 2000)")

    def note(notice):
        ahead[notice.message_primary.split()[0]] += 1

    looker = database.connect()
    looker.add_notice_handler(note)
    look = LOOK.replace("THE LOOK", look_sql())
    threads = [threading.Thread(target=draw) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: looker.execute(look) and ahead["row"] >= 10, 120, "the sequence's row is seen ahead 10 times")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert ahead["floor"] == 0
