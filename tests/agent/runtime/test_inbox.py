"""What wakes the loop, and that nothing else does."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

import pytest

from thingctl_agent.runtime.inbox import RequestInbox

FOREVER = float("inf")


@pytest.fixture
def inbox():
    inbox = RequestInbox()
    yield inbox
    os.close(inbox._wake_read)
    os.close(inbox._wake_write)


class Connection:
    """One end of a pair of sockets, as the loop's connection is one of a socket."""

    def __init__(self, sock, *, wants_write=False):
        self.sock = sock
        self.wants_write = wants_write

    def fileno(self):
        return self.sock.fileno()


@pytest.fixture
def pair():
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


def taken(inbox):
    return [call() for call in iter(inbox.take, None)]


def test_the_loop_does_not_sleep_while_a_call_waits():
    inbox = RequestInbox()
    inbox.post(print)
    inbox.wait(0, None)
    begun = time.monotonic()
    inbox.wait(10, None)
    assert time.monotonic() - begun < 5


def test_calls_are_taken_in_the_order_in_which_they_were_posted(inbox):
    for i in range(3):
        inbox.post(lambda i=i: i)
    assert taken(inbox) == [0, 1, 2]
    assert inbox.take() is None


def test_a_call_from_another_thread_ends_the_waiting(inbox):
    thread = threading.Thread(target=inbox.post, args=(lambda: "done",))
    thread.start()
    assert inbox.wait(FOREVER, None) is False
    thread.join()
    assert taken(inbox) == ["done"]


def test_a_wait_that_nothing_ends_lasts_as_long_as_it_was_told_to_and_no_less(inbox):
    began = time.monotonic()
    assert inbox.wait(0.05, None) is False
    assert time.monotonic() - began >= 0.05
    assert inbox.wait(-1.0, None) is False  # what is due already is not waited for


def test_more_calls_than_the_pipe_has_room_for_are_all_taken(inbox):
    for _ in range(100_000):
        inbox.post(lambda: None)
    assert inbox.wait(FOREVER, None) is False
    assert len(taken(inbox)) == 100_000


def test_what_comes_on_the_connection_is_told_and_what_was_posted_is_not_taken_for_it(inbox, pair):
    near, far = pair
    connection = Connection(near)
    inbox.post(lambda: None)
    assert inbox.wait(FOREVER, connection) is False
    far.send(b"x")
    assert inbox.wait(FOREVER, connection) is True


def test_room_to_write_is_waited_for_only_where_something_is_to_be_written(inbox, pair):
    connection = Connection(pair[0], wants_write=True)
    assert inbox.wait(FOREVER, connection) is True
    connection.wants_write = False
    assert inbox.wait(0, connection) is False


def test_another_connection_takes_the_place_of_the_one_before(inbox, pair):
    near, far = pair
    far.send(b"x")
    assert inbox.wait(FOREVER, Connection(near)) is True
    other, another = socket.socketpair()
    with other, another:
        assert inbox.wait(0, Connection(other)) is False
        another.send(b"x")
        assert inbox.wait(FOREVER, Connection(other)) is True
    assert inbox.wait(0, None) is False


def test_a_connection_that_was_closed_meanwhile_is_waited_for_no_more(inbox, pair):
    connection = Connection(pair[0])
    assert inbox.wait(0, connection) is False
    pair[0].close()
    assert connection.fileno() == -1
    assert inbox.wait(0, connection) is False


def test_a_signal_ends_the_waiting_and_its_call_is_the_loops(inbox):
    before = signal.getsignal(signal.SIGUSR1)
    restore = inbox.take_signals({signal.SIGUSR1: lambda: "signalled"})
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert inbox.wait(FOREVER, None) is False
        assert taken(inbox) == ["signalled"]
    finally:
        restore()
    assert signal.getsignal(signal.SIGUSR1) == before


def test_another_thread_than_the_main_one_takes_no_signals(inbox):
    before = signal.getsignal(signal.SIGUSR1)

    def elsewhere():
        restore = inbox.take_signals({signal.SIGUSR1: lambda: None})
        restore()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGUSR1) == before
