"""Delivery against lists: the window, the order, and each request exactly once unless again."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from thingctl_broker.commands.delivery import Deliveries, PublishRequest

THINGS = ("a", "b")


class ListModel:
    """One thing's delivery, told with lists."""

    def __init__(self, window):
        self.window = window
        self.here = False
        self.out = []
        self.behind = []
        self.stopping = []

    def _fill(self):
        new = self.behind[: max(0, self.window - len(self.out))]
        self.behind = self.behind[len(new) :]
        self.out += new
        return [PublishRequest(request, again=False) for request in new]

    def add(self, request):
        self.behind.append(request)
        return bool(self._fill()) if self.here else False

    def reachable(self):
        self.here = True
        return [PublishRequest(request, again=True) for request in self.out] + self._fill()

    def acknowledged(self, request):
        self.out = [other for other in self.out if other != request]
        self.behind = [other for other in self.behind if other != request]
        return self._fill() if self.here else []

    def ended(self, request):
        self.stopping = [other for other in self.stopping if other != request]
        return self.acknowledged(request)

    def cancel(self, request):
        self.stopping.append(request)
        return self.acknowledged(request)


class DeliveryMachine(RuleBasedStateMachine):
    @initialize(window=st.integers(1, 4), queue_max=st.integers(1, 6))
    def begin(self, window, queue_max):
        self.deliveries = Deliveries(window, queue_max)
        self.models = {thing: ListModel(window) for thing in THINGS}
        self.queue_max = queue_max
        self.count = 0
        self.first_times = []

    def told(self, publishes):
        self.first_times += [request for request, again in publishes if not again]
        return publishes

    @rule(thing=st.sampled_from(THINGS))
    def add(self, thing):
        if not self.deliveries.has_room(thing):
            assert len(self.models[thing].behind) == self.queue_max
            return
        self.count += 1
        request = f"{thing}{self.count:05}"
        now = self.deliveries.add(thing, request)
        assert now == self.models[thing].add(request)
        if now:
            self.first_times.append(request)

    @rule(thing=st.sampled_from(THINGS))
    def reachable(self, thing):
        assert self.told(self.deliveries.reachable(thing)) == self.models[thing].reachable()

    @rule(thing=st.sampled_from(THINGS))
    def unreachable(self, thing):
        self.deliveries.unreachable(thing)
        self.models[thing].here = False

    @rule(data=st.data(), thing=st.sampled_from(THINGS), how=st.sampled_from(["acknowledged", "ended"]))
    def leave(self, data, thing, how):
        model = self.models[thing]
        request = data.draw(st.sampled_from([*model.out, *model.behind, *model.stopping, "?"]))
        assert self.told(getattr(self.deliveries, how)(thing, request)) == getattr(model, how)(request)

    @precondition(lambda self: any(model.out for model in self.models.values()))
    @rule(data=st.data())
    def cancel(self, data):
        thing = data.draw(st.sampled_from([thing for thing in THINGS if self.models[thing].out]))
        request = data.draw(st.sampled_from(self.models[thing].out))
        assert self.told(self.deliveries.cancel(thing, request)) == self.models[thing].cancel(request)

    @invariant()
    def agrees(self):
        for thing, model in self.models.items():
            assert self.deliveries.is_reachable(thing) == model.here
            assert self.deliveries.waiting(thing) == len(model.behind)
            assert list(self.deliveries.canceling(thing)) == model.stopping
            assert self.deliveries.has_room(thing) == (len(model.behind) < self.queue_max)
            assert len(model.out) <= model.window

    @invariant()
    def each_goes_out_once_and_in_order(self):
        for thing in THINGS:
            mine = [request for request in self.first_times if request.startswith(thing)]
            assert mine == sorted(set(mine))

    @invariant()
    def nothing_idle_is_remembered(self):
        for thing, model in self.models.items():
            if not (model.here or model.out or model.behind or model.stopping):
                assert thing not in self.deliveries._things


TestDelivery = DeliveryMachine.TestCase


def test_a_thousand_waiting_leave_in_order_through_the_window():
    deliveries = Deliveries(window=3)
    for i in range(1000):
        deliveries.add("t", f"{i:04}")
    out = deliveries.reachable("t")
    for publish in out:
        out += deliveries.acknowledged("t", publish.execution_id)
    assert [publish.execution_id for publish in out] == [f"{i:04}" for i in range(1000)]


def test_what_a_store_gives_back_goes_out_the_published_first_and_again():
    deliveries = Deliveries(window=2)
    deliveries.restore("t", "1", published=True)
    deliveries.restore("t", "2", published=False)
    deliveries.restore("t", "3", published=False)
    assert deliveries.waiting("t") == 2
    assert deliveries.reachable("t") == [PublishRequest("1", again=True), PublishRequest("2", again=False)]
    assert deliveries.acknowledged("t", "1") == [PublishRequest("3", again=False)]


def test_more_restored_than_the_window_holds_is_published_again_one_by_one():
    deliveries = Deliveries(window=1)
    for request in "12":
        deliveries.restore("t", request, published=True)
    deliveries.add("t", "3")
    assert deliveries.reachable("t") == [PublishRequest("1", again=True)]
    assert deliveries.acknowledged("t", "1") == [PublishRequest("2", again=True)]
    assert deliveries.acknowledged("t", "2") == [PublishRequest("3", again=False)]


def test_things_that_come_and_go_leave_nothing_behind():
    deliveries = Deliveries()
    for i in range(100):
        deliveries.reachable(f"t{i}")
        deliveries.add(f"t{i}", "1")
        deliveries.unreachable(f"t{i}")
        deliveries.ended(f"t{i}", "1")
    assert deliveries._things == {}
    deliveries.unreachable("never-seen")
    assert deliveries._things == {}


def test_what_is_being_canceled_is_never_published_again_and_stays_known_until_it_ends():
    deliveries = Deliveries(window=1)
    deliveries.reachable("t")
    deliveries.add("t", "1")
    deliveries.add("t", "2")
    assert deliveries.cancel("t", "1") == [PublishRequest("2", again=False)]
    deliveries.unreachable("t")
    deliveries.acknowledged("t", "1")
    assert deliveries.canceling("t") == ("1",)
    assert deliveries.reachable("t") == [PublishRequest("2", again=True)]
    deliveries.ended("t", "1")
    assert deliveries.canceling("t") == ()


def test_a_cancel_waits_for_a_thing_that_has_nothing_else():
    deliveries = Deliveries()
    assert deliveries.cancel("t", "1") == []
    deliveries.unreachable("t")
    assert deliveries.canceling("t") == ("1",)
    deliveries.ended("t", "1")
    assert deliveries._things == {}


def test_a_client_that_takes_less_gets_less_at_a_time_and_repeats_stay_repeats():
    deliveries = Deliveries(window=4)
    deliveries.reachable("t")
    for i in range(6):
        deliveries.add("t", str(i))
    deliveries.unreachable("t")
    assert deliveries.reachable("t", 2) == [PublishRequest("0", again=True), PublishRequest("1", again=True)]
    assert not deliveries.add("t", "6")
    assert deliveries.acknowledged("t", "0") == [PublishRequest("2", again=True)]
    assert deliveries.ended("t", "3") == [], "it was not on its way"
    assert deliveries.acknowledged("t", "1") == [PublishRequest("4", again=False)]
    deliveries.unreachable("t")
    again = deliveries.reachable("t")
    assert [request.execution_id for request in again] == ["2", "4", "5", "6"]
    assert [request.again for request in again] == [True, True, False, False]
