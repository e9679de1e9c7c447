"""The table against a plain dict: bounds, deadlines, and lists that lose and double nothing."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker_support import AT, NOW, make_execution, say
from thingctl_broker.commands import table as table_module
from thingctl_broker.commands.table import ExecutionTable, PageOfExecutions, Query
from thingctl_broker.errors import TableFull
from thingctl_protocol.statuses import TERMINAL, Status

THINGS, ACTIONS, COMMANDS = ("a", "b", "c"), ("x", "y"), ("c1", "c2")
KEEP = 100.0
QUERIES = st.builds(
    Query,
    st.none() | st.sampled_from([*THINGS, "nobody"]),
    st.none() | st.sampled_from(ACTIONS),
    st.none() | st.frozensets(st.sampled_from(Status)),
    st.none() | st.sampled_from(COMMANDS),
)


def admitted(query, execution):
    return (
        query.thing in {None, execution.thing}
        and query.action in {None, execution.action}
        and (query.statuses is None or execution.status in query.statuses)
        and query.command_id in {None, execution.command_id}
    )


class TableMachine(RuleBasedStateMachine):
    @initialize(capacity=st.integers(1, 12))
    def begin(self, capacity):
        self.table = ExecutionTable(capacity, KEEP)
        self.model = {}  # id -> execution, in the order of creation
        self.ended = []  # ids in the order of their end
        self.now, self.at = NOW, AT
        self.walk = None  # (query, limit, cursor, ids seen, ids that were there at its start)

    def live(self):
        return [execution for execution in self.model.values() if execution.status not in TERMINAL]

    @rule(
        thing=st.sampled_from(THINGS),
        action=st.sampled_from(ACTIONS),
        command=st.sampled_from(COMMANDS),
        ttl=st.integers(1, 60),
    )
    def add(self, thing, action, command, ttl):
        execution = make_execution(
            thing=thing,
            action=action,
            command_id=command,
            created_at=self.at,
            deadline=self.now + ttl,
            ttl=ttl,
        )
        if len(self.model) == self.table.capacity and not self.ended:
            with pytest.raises(TableFull):
                self.table.add(execution)
            return
        left = self.table.add(execution)
        if len(self.model) == self.table.capacity:
            assert left.execution_id == self.ended.pop(0)
            del self.model[left.execution_id]
        else:
            assert left is None
        self.model[execution.execution_id] = execution

    @precondition(lambda self: self.live())
    @rule(data=st.data(), status=st.sampled_from([Status.SUCCEEDED, Status.FAILED]))
    def end(self, data, status):
        execution = data.draw(st.sampled_from(self.live()))
        execution.respond(say(status), self.at)
        self.table.ended(execution)
        self.ended.append(execution.execution_id)

    @precondition(lambda self: self.live())
    @rule(data=st.data(), grace=st.integers(1, 30))
    def bring_a_deadline_nearer(self, data, grace):
        execution = data.draw(st.sampled_from(self.live()))
        execution.published(self.at)
        execution.cancel(self.now, self.at, grace)
        self.table.reschedule(execution)

    @rule(seconds=st.integers(0, 80))
    def expire(self, seconds):
        self.now += seconds
        self.at += seconds
        due = {execution.execution_id for execution in self.live() if execution.next_deadline <= self.now}
        found = []
        for execution in self.table.due(self.now):
            assert execution.expire(self.now, self.at)
            self.table.ended(execution)
            found.append(execution.execution_id)
        assert len(found) == len(set(found))
        assert set(found) == due
        self.ended += found

    @rule(limit=st.integers(1, 5))
    def evict(self, limit):
        old = [i for i in self.ended if self.model[i].ended_at <= self.at - KEEP][:limit]
        assert [e.execution_id for e in self.table.evict(self.now, limit)] == old
        for execution_id in old:
            self.ended.remove(execution_id)
            del self.model[execution_id]

    @rule(query=QUERIES, limit=st.integers(1, 5))
    def begin_a_walk(self, query, limit):
        self.walk = (query, limit, None, [], set(self.model))

    @precondition(lambda self: self.walk is not None)
    @rule()
    def turn_the_page(self):
        query, limit, cursor, seen, at_start = self.walk
        page = self.table.select(query, limit, cursor)
        ids = [execution.execution_id for execution in page.executions]
        assert len(ids) <= limit
        seen = seen + ids
        assert seen == sorted(set(seen), reverse=True), "newest first, none twice"
        assert all(admitted(query, self.model[i]) for i in ids)
        if page.cursor is not None:
            assert cursor is None or page.cursor < cursor
            self.walk = (query, limit, page.cursor, seen, at_start)
            return
        self.walk = None
        if query.statuses is None:  # else what was passed over may match by now
            wanted = {i for i in at_start & set(self.model) if admitted(query, self.model[i])}
            assert wanted <= set(seen), "none missed that was there all the time"

    @rule(query=QUERIES)
    def list_all_at_once(self, query):
        page = self.table.select(query, 1000)
        wanted = [e.execution_id for e in reversed(self.model.values()) if admitted(query, e)]
        assert [execution.execution_id for execution in page.executions] == wanted
        assert page.cursor is None

    @invariant()
    def agrees(self):
        assert {e.execution_id for e in self.table} == set(self.model)
        assert len(self.table) == len(self.model) <= self.table.capacity
        assert self.table.live == len(self.live())
        assert all(self.table.get(i) is execution for i, execution in self.model.items())
        next_deadline = min((e.next_deadline for e in self.live()), default=None)
        if next_deadline is not None:
            assert self.table.next_deadline() <= next_deadline


TestTable = TableMachine.TestCase


def filled(count, **bounds):
    table = ExecutionTable(**bounds)
    executions = [make_execution(thing=f"t{i % 3}", deadline=NOW + i) for i in range(count)]
    for execution in executions:
        table.add(execution)
    return table, executions


def end(table, execution, at=AT):
    execution.respond(say(Status.SUCCEEDED), at)
    table.ended(execution)


def test_a_full_table_lets_go_what_ended_first_and_refuses_when_all_live():
    table, (first, second) = filled(2, capacity=2)
    with pytest.raises(TableFull, match="all 2"):
        table.add(make_execution())
    end(table, second)
    end(table, first)
    assert table.add(make_execution()) is second
    assert table.get(second.execution_id) is None
    assert table.add(make_execution()) is first


def test_an_ended_execution_stays_until_its_time_is_exactly_up():
    table, (execution,) = filled(1, keep_seconds=100.0)
    end(table, execution, AT)
    assert table.evict(execution.created + 99.9, 10) == []
    assert table.evict(execution.created + 100, 10) == [execution]
    assert len(table) == 0


def test_what_a_store_gives_back_as_ended_counts_as_ended():
    table = ExecutionTable(capacity=1)
    execution = make_execution(status=Status.FAILED, ended_at=AT)
    table.add(execution)
    assert (table.live, table.next_deadline()) == (0, None)
    assert table.add(make_execution()) is execution


def test_of_what_a_store_gives_back_too_much_the_longest_ended_leaves():
    table = ExecutionTable(capacity=3)
    ends = [AT + 3, AT + 1, AT + 2, AT + 4]
    executions = [make_execution(status=Status.FAILED, ended_at=ended_at) for ended_at in ends]
    for execution in executions:
        table.restore(execution)
    assert table.restored() == [executions[1]]
    assert table.add(make_execution()) is executions[2]
    assert table.add(make_execution()) is executions[0]


def test_of_what_a_store_gives_back_nothing_live_is_forgotten():
    table = ExecutionTable(capacity=1)
    executions = [make_execution() for _ in range(3)]
    for execution in executions:
        table.restore(execution)
    assert table.restored() == []
    assert table.live == 3
    with pytest.raises(TableFull):
        table.add(make_execution())


def test_a_deadline_is_due_at_its_exact_edge_and_once():
    table, (execution,) = filled(1)
    assert list(table.due(NOW - 0.001)) == []
    assert list(table.due(NOW)) == [execution]
    assert list(table.due(NOW + 99)) == []


def test_deadlines_of_ended_executions_do_not_pile_up():
    table, _ = filled(0, capacity=50)
    for _ in range(5000):
        execution = make_execution(deadline=NOW + 604800)
        table.add(execution)
        end(table, execution)
    assert len(table) == 50
    assert len(table._deadlines) <= 1001


def test_the_orders_of_things_that_are_gone_do_not_pile_up():
    table, _ = filled(0, capacity=10)
    for i in range(500):
        execution = make_execution(thing=f"t{i}")
        table.add(execution)
        end(table, execution)
    assert len(table._by_thing) == 10
    assert len(table._order._ids) <= 21


def test_a_rare_filter_takes_pages_rather_than_time(monkeypatch):
    monkeypatch.setattr(table_module, "SCAN_MAX", 10)
    table, executions = filled(35)
    wanted = executions[0]
    wanted.action = "rare"
    cursor, pages, found = None, 0, []
    while True:
        page = table.select(Query(action="rare"), 5, cursor)
        found += page.executions
        pages += 1
        cursor = page.cursor
        if cursor is None:
            break
    assert found == [wanted]
    assert pages == 4


@pytest.mark.parametrize("cursor", ["", "0", "~", "not-an-id", "\ud800"])
def test_any_text_is_a_cursor_somewhere(cursor):
    table, executions = filled(3)
    page = table.select(Query(), 10, cursor)
    wanted = [e for e in reversed(executions) if e.execution_id < cursor]
    assert page.executions == wanted


def test_a_page_continues_behind_an_execution_that_has_left():
    table, executions = filled(4)
    page = table.select(Query(), 2)
    for execution in executions[1:3]:
        end(table, execution)
    table.evict(NOW + 1e9, 10)
    rest = table.select(Query(), 2, page.cursor)
    assert [*page.executions, *rest.executions] == [executions[3], executions[2], executions[0]]


def test_executions_of_one_command():
    table = ExecutionTable()
    group = [make_execution(command_id="group") for _ in range(3)]
    single = make_execution(command_id="single")
    for execution in (*group, single):
        table.add(execution)
    assert list(table.of_command("group")) == group[::-1]
    assert list(table.of_command("single")) == [single]
    assert list(table.of_command("none")) == []
    assert table.select(Query(command_id="group"), 2).executions == group[:0:-1]
    assert table.select(Query(command_id="single"), 2) == PageOfExecutions([single], None)
    assert table.select(Query(command_id="none"), 2) == PageOfExecutions([], None)
    for execution in (group[1], single, group[0]):
        table.withdraw(execution)
    assert list(table.of_command("group")) == [group[2]]
    assert list(table.of_command("single")) == []
    table.withdraw(group[2])
    assert table._by_command == {}


def test_by_time_by_things_and_oldest_first():
    table = ExecutionTable()
    made = [make_execution(created_at=float(i), thing=f"t{i % 2}") for i in range(6)]
    for execution in made:
        table.add(execution)
    assert table.select(Query(since=2.0, until=4.0), 9).executions == [made[3], made[2]]
    assert table.select(Query(things={"t1"}), 9).executions == made[5::-2]
    first = table.select(Query(oldest_first=True), 4)
    assert first.executions == made[:4]
    assert table.select(Query(oldest_first=True), 4, first.cursor) == PageOfExecutions(made[4:], None)


def test_a_command_is_found_at_once_in_a_large_table(monkeypatch):
    monkeypatch.setattr(table_module, "SCAN_MAX", 3)
    table = ExecutionTable()
    wanted = make_execution(command_id="wanted")
    table.add(wanted)
    for _ in range(10):
        table.add(make_execution())
    assert table.select(Query(command_id="wanted"), 5).executions == [wanted]
