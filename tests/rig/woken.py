"""Has a relay of exactly-once delivery that others took over from written anything since it woke up? Not even what is aborted."""
from confluent_kafka import IsolationLevel

from processes import wait_until


class Woken:
    """
    Made before it wakes up; judged() while its heir works. Its producers were fenced when the heir took over, so what their clients had
    not sent by then is refused. Committed records that it wrote come twice, which other checks see.
    """

    def __init__(self, topics, topic, heir):
        self.topics, self.topic, self.heir = topics, topic, heir
        self.begin, self.aborts = self._ends(IsolationLevel.READ_UNCOMMITTED), self._aborts_of_heir()
        self.end = None

    def _ends(self, isolation):
        return self.topics.ends(self.topic, isolation)

    def _aborts_of_heir(self):
        return self.heir.metric("tandem_relay_transactions_aborted_total")

    def _is_decided(self):
        stable = self._ends(IsolationLevel.READ_COMMITTED)
        return all(stable[p] >= end for p, end in self.end.items())

    def judged(self):
        """Up to here: what the heir leaves open when it is stopped in its turn is aborted rightly."""
        self.end = self._ends(IsolationLevel.READ_UNCOMMITTED)
        wait_until(self._is_decided, message="every transaction until then has ended")
        assert self._aborts_of_heir() == self.aborts, "the records aborted since it woke up are not its heir's"
        return self

    def aborted(self):
        return [(m.partition(), m.offset(), m.value()) for m in self.topics.aborted(self.topic)
                if self.begin[m.partition()] <= m.offset() < self.end[m.partition()]]
