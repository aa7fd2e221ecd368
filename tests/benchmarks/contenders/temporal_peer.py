"""Temporal's offline Replayer, over the history of a workflow of activities, made up here: there is no server."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio import activity, workflow
from temporalio.api.enums.v1 import EventType, TaskQueueKind
from temporalio.api.history.v1 import History, HistoryEvent
from temporalio.client import WorkflowHistory
from temporalio.converter import DataConverter
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

with workflow.unsafe.imports_passed_through():  # what the sandbox need not load again
    from payload import result
    from stage import main, stopwatch

QUEUE = "bench"


@activity.defn
async def step(number: int) -> dict:
    return result(number)


@workflow.defn
class Row:
    @workflow.run
    async def run(self, steps: int) -> int:
        for number in range(steps):
            await workflow.execute_activity(step, number, start_to_close_timeout=timedelta(seconds=10))
        return steps


class Story:
    """The events of a history, as the server would have written them."""

    def __init__(self):
        self.history = History()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.encode = DataConverter.default.payload_converter.to_payloads

    def add(self, kind):
        """Add an event of a kind and return it; the next happens a millisecond later."""
        at = Timestamp()
        at.FromDatetime(self.now)
        self.now += timedelta(milliseconds=1)
        number = len(self.history.events) + 1
        self.history.events.append(
            HistoryEvent(event_id=number, event_time=at, event_type=getattr(EventType, f"EVENT_TYPE_{kind}"))
        )
        return self.history.events[-1]

    def task(self):
        """Add a workflow task: scheduled, started, completed."""
        scheduled = self.add("WORKFLOW_TASK_SCHEDULED")
        scheduled.workflow_task_scheduled_event_attributes.task_queue.name = QUEUE
        scheduled.workflow_task_scheduled_event_attributes.task_queue.kind = (
            TaskQueueKind.TASK_QUEUE_KIND_NORMAL
        )
        scheduled.workflow_task_scheduled_event_attributes.attempt = 1
        started = self.add("WORKFLOW_TASK_STARTED")
        started.workflow_task_started_event_attributes.scheduled_event_id = scheduled.event_id
        completed = self.add("WORKFLOW_TASK_COMPLETED")
        told = completed.workflow_task_completed_event_attributes
        told.scheduled_event_id, told.started_event_id = scheduled.event_id, started.event_id
        told.sdk_metadata.core_used_flags.extend([1, 2, 3])  # without them a changed activity goes unnoticed
        told.sdk_metadata.lang_used_flags.extend([1])
        return completed.event_id


def history(steps, kind="step"):
    """Return the history of a workflow of `steps` activities."""
    story = Story()
    first = story.add("WORKFLOW_EXECUTION_STARTED").workflow_execution_started_event_attributes
    first.workflow_type.name, first.task_queue.name = "Row", QUEUE
    first.input.payloads.extend(story.encode([steps]))
    first.original_execution_run_id = first.first_execution_run_id = "0b6a1c2e-0000-4000-8000-000000000001"
    first.attempt = 1
    task = story.task()
    for number in range(steps):
        scheduled = story.add("ACTIVITY_TASK_SCHEDULED")
        told = scheduled.activity_task_scheduled_event_attributes
        told.activity_id, told.activity_type.name = str(number + 1), kind
        told.task_queue.name = QUEUE
        told.input.payloads.extend(story.encode([number]))
        told.start_to_close_timeout.FromTimedelta(timedelta(seconds=10))
        told.workflow_task_completed_event_id = task
        started = story.add("ACTIVITY_TASK_STARTED")
        started.activity_task_started_event_attributes.scheduled_event_id = scheduled.event_id
        started.activity_task_started_event_attributes.attempt = 1
        completed = story.add("ACTIVITY_TASK_COMPLETED").activity_task_completed_event_attributes
        completed.scheduled_event_id, completed.started_event_id = scheduled.event_id, started.event_id
        completed.result.payloads.extend(story.encode([result(number)]))
        task = story.task()
    last = story.add("WORKFLOW_EXECUTION_COMPLETED").workflow_execution_completed_event_attributes
    last.result.payloads.extend(story.encode([steps]))
    last.workflow_task_completed_event_id = task
    return WorkflowHistory("bench", list(story.history.events))


def replayed(n, sandbox=0):
    """Replay a history that is in memory already."""

    async def measured():
        runner = SandboxedWorkflowRunner() if sandbox else UnsandboxedWorkflowRunner()
        replayer = Replayer(workflows=[Row], workflow_runner=runner)
        wrong = await replayer.replay_workflow(history(3, kind="another"), raise_on_replay_failure=False)
        assert wrong.replay_failure, "the Replayer does not compare: the figure would say nothing"
        told, told_of = {}, history(n)
        with stopwatch(n, told):
            await replayer.replay_workflow(told_of)
        return told

    return asyncio.run(measured())


if __name__ == "__main__":
    main(replayed)
