"""One thread, newest wins, urgent first, errors in a line."""

import threading

import pytest
from loopkit_tui.worker import Answer, Done, Emit, Failed, Stopped, Urgency, Worker

from loopkit.errors import LoopkitError

WAIT = 60


class Inbox:
    """Answers in the order they come, and a way to wait for the last of a request."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._change = threading.Condition()

    def __call__(self, answer: Answer) -> None:
        with self._change:
            self.answers.append(answer)
            self._change.notify_all()

    def of(self, number: int) -> list[object]:
        return [answer.value for answer in self.answers if answer.number == number]

    def ended(self, number: int) -> object:
        with self._change:
            assert self._change.wait_for(lambda: any(isinstance(value, Done | Failed | Stopped) for value in self.of(number)), WAIT)
        return self.of(number)[-1]


@pytest.fixture
def worker():
    made = Worker()
    yield made
    assert made.close(WAIT)


def test_answers_carry_the_number_of_their_request_and_end(worker: Worker) -> None:
    inbox = Inbox()
    first = worker.ask("a", lambda emit: [emit(1), emit(2)], inbox)
    second = worker.ask("b", lambda emit: emit(3), inbox)
    inbox.ended(first), inbox.ended(second)
    assert inbox.of(first) == [1, 2, Done()]
    assert inbox.of(second) == [3, Done()]


def test_a_newer_request_of_its_kind_stops_the_older_at_its_next_step(worker: Worker) -> None:
    inbox, started, go_on = Inbox(), threading.Event(), threading.Event()

    def long(emit: Emit) -> None:
        emit("begun")
        started.set()
        assert go_on.wait(WAIT)
        emit("must not be seen")

    old = worker.ask("look", long, inbox)
    assert started.wait(WAIT)
    new = worker.ask("look", lambda emit: emit("new"), inbox)
    go_on.set()
    inbox.ended(new)
    assert inbox.of(old) == ["begun", Stopped()]
    assert inbox.of(new) == ["new", Done()]


def test_a_storm_of_requests_ends_with_the_last(worker: Worker) -> None:
    inbox, ran = Inbox(), []

    def work(number: int, emit: Emit) -> None:
        for _ in range(50):
            worker.breathe()
        ran.append(number)
        emit(number)

    numbers = [worker.ask("look", lambda emit, i=i: work(i, emit), inbox) for i in range(300)]
    assert inbox.ended(numbers[-1]) == Done()
    assert inbox.of(numbers[-1]) == [299, Done()]
    assert ran[-1] == 299
    assert ran == sorted(ran)


def test_what_is_urgent_runs_between_two_steps_of_what_is_long(worker: Worker) -> None:
    inbox, started, asked = Inbox(), threading.Event(), threading.Event()
    order = []

    def long(emit: Emit) -> None:
        started.set()
        assert asked.wait(WAIT)
        worker.breathe()
        order.append("long")

    slow = worker.ask("sweep", long, inbox, Urgency.LONG)
    assert started.wait(WAIT)
    less = worker.ask("probe", lambda emit: order.append("also long"), inbox, Urgency.LONG)
    fast = worker.ask("look", lambda emit: order.append("urgent"), inbox, Urgency.NOW)
    asked.set()
    inbox.ended(slow), inbox.ended(fast), inbox.ended(less)
    assert order == ["urgent", "long", "also long"]


def test_a_long_request_can_be_stopped_while_an_urgent_one_runs_inside_of_it(worker: Worker) -> None:
    inbox, started, asked = Inbox(), threading.Event(), threading.Event()
    finished = []

    def long(emit: Emit) -> None:
        started.set()
        assert asked.wait(WAIT)
        worker.breathe()
        finished.append("long")

    slow = worker.ask("sweep", long, inbox, Urgency.LONG)
    assert started.wait(WAIT)
    fast = worker.ask("look", lambda emit: worker.cancel("sweep"), inbox)
    asked.set()
    assert inbox.ended(slow) == Stopped()
    assert inbox.ended(fast) == Done()
    assert not finished


@pytest.mark.parametrize(
    ("error", "line"), [(LoopkitError("no such file; make one"), "no such file; make one"), (KeyError("a\nb"), "KeyError: 'a\\nb'")]
)
def test_errors_come_as_one_line_and_the_thread_lives_on(worker: Worker, error: Exception, line: str) -> None:
    inbox = Inbox()

    def fail(emit: Emit) -> None:
        raise error

    assert inbox.ended(worker.ask("a", fail, inbox)) == Failed(line)
    assert inbox.ended(worker.ask("a", lambda emit: emit(1), inbox)) == Done()


def test_cancelling_says_whether_there_was_anything(worker: Worker) -> None:
    inbox, started = Inbox(), threading.Event()

    def long(emit: Emit) -> None:
        started.set()
        while True:
            worker.breathe()

    number = worker.ask("a", long, inbox)
    assert started.wait(WAIT)
    assert not worker.cancel("b")
    assert worker.cancel()
    assert inbox.ended(number) == Stopped()
    assert not worker.cancel()


def test_closing_ends_what_runs() -> None:
    worker, inbox, started = Worker(), Inbox(), threading.Event()

    def long(emit: Emit) -> None:
        started.set()
        while True:
            worker.breathe()

    number = worker.ask("a", long, inbox)
    assert started.wait(WAIT)
    assert worker.close(WAIT)
    assert inbox.ended(number) == Stopped()
