"""What a tenant is not shown of the GCS's messages counts as seen, so that nobody is asked for it again."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("ray")

from ray.core.generated import gcs_pb2, pubsub_pb2
from ray.core.generated import gcs_service_pb2 as pb

from compute_guard.ray_plugin.gates import replies
from compute_guard.ray_plugin.gates.polls import Polls
from compute_guard.ray_plugin.gates.tenancy import Jobs
from compute_guard.ray_plugin.gates.wire import Call

CALL = Call("ControlPlanePubSubGcsService", "GcsSubscriberPoll", "/poll", "acme", (), None)


class Mailbox:
    """A publisher as Ray's (publisher.cc): what is not confirmed is sent at once, else the poll is held."""

    def __init__(self, publisher: bytes = b"gcs") -> None:
        self.publisher, self.letters, self.polls, self.changed = publisher, [], 0, asyncio.Event()

    def publish(self, node: bytes) -> None:
        letter = pubsub_pb2.PubMessage(key_id=node, sequence_id=len(self.letters) + 1)
        letter.node_address_and_liveness_message.state = gcs_pb2.GcsNodeInfo.DEAD
        self.letters.append(letter)
        self.changed.set()

    async def forward(self, call, request):
        self.polls += 1
        asked = pb.GcsSubscriberPollRequest.FromString(request)
        confirmed = asked.max_processed_sequence_id if asked.publisher_id == self.publisher else 0
        while not (left := [letter for letter in self.letters if letter.sequence_id > confirmed]):
            self.changed.clear()
            await self.changed.wait()
        return pb.GcsSubscriberPollReply(publisher_id=self.publisher, pub_messages=left).SerializeToString()


def asking(tmp_path, mailbox, confirmed: int = 0, publisher: bytes = b"gcs"):
    async def view(tenant):
        return replies.View(tenant, Jobs(tmp_path / "jobs"), ["acme"], {b"own"})

    request = pb.GcsSubscriberPollRequest(
        subscriber_id=b"s", max_processed_sequence_id=confirmed, publisher_id=publisher
    )
    return asyncio.ensure_future(Polls(mailbox, view).poll(CALL, "acme", request.SerializeToString()))


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.parametrize("publisher", [b"gcs", b"the one before a restart"])
def test_a_poll_waits_while_only_others_messages_come_and_each_is_fetched_once(tmp_path, publisher):
    async def story():
        mailbox = Mailbox()
        mailbox.publish(b"foreign")
        mailbox.publish(b"foreign")
        poll = asking(tmp_path, mailbox, publisher=publisher)
        await settled()
        assert not poll.done() and mailbox.polls == 2
        mailbox.publish(b"foreign")
        await settled()
        assert not poll.done() and mailbox.polls == 3
        mailbox.publish(b"own")
        return pb.GcsSubscriberPollReply.FromString(await poll)

    [letter] = asyncio.run(story()).pub_messages
    assert (letter.key_id, letter.sequence_id) == (b"own", 4)


def test_what_comes_after_the_last_one_shown_is_fetched_once_more_and_not_again(tmp_path):
    async def story():
        mailbox = Mailbox()
        mailbox.publish(b"own")
        mailbox.publish(b"foreign")
        first = pb.GcsSubscriberPollReply.FromString(await asking(tmp_path, mailbox))
        poll = asking(tmp_path, mailbox, confirmed=first.pub_messages[-1].sequence_id)
        await settled()
        assert not poll.done() and mailbox.polls == 3
        poll.cancel()
        return [letter.key_id for letter in first.pub_messages]

    assert asyncio.run(story()) == [b"own"]


def test_an_empty_answer_of_the_publisher_is_handed_on(tmp_path):
    class Nothing(Mailbox):
        async def forward(self, call, request):
            return pb.GcsSubscriberPollReply(publisher_id=b"new").SerializeToString()

    async def story():
        return await asking(tmp_path, Nothing())

    assert pb.GcsSubscriberPollReply.FromString(asyncio.run(story())).publisher_id == b"new"
