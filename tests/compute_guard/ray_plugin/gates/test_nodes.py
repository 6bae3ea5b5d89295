"""Which nodes a tenant sees, and that it hears of their death."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("ray")

from ray.core.generated import gcs_pb2, pubsub_pb2
from ray.core.generated import gcs_service_pb2 as pb

from compute_guard.admission.ray_body import POOL_LABEL
from compute_guard.ray_plugin.gates import replies
from compute_guard.ray_plugin.gates.nodes import Nodes
from compute_guard.ray_plugin.gates.tenancy import Jobs


class Table:
    """A GCS that knows a living node of acme, a dead one, and one of beta."""

    async def call(self, method, request, timeout):
        assert method.endswith("/GetAllNodeInfo")
        reply = pb.GetAllNodeInfoReply()
        for name, state, pool in ((b"lives", 0, "acme"), (b"dead", 1, "acme"), (b"foreign", 0, "beta")):
            node = reply.node_info_list.add(node_id=name, state=state, node_manager_address=name.decode())
            node.labels[POOL_LABEL] = pool
        return reply.SerializeToString()


@pytest.fixture
def nodes(tmp_path) -> Nodes:
    nodes = Nodes(Table(), tmp_path / "gates.json")
    asyncio.run(nodes.refresh())
    return nodes


def test_a_dead_node_gets_no_work_and_is_still_known(nodes):
    assert nodes.ids_in(["acme"]) == {b"lives"}
    assert nodes.seen_in(["acme"]) == {b"lives", b"dead"}


def death_of(node: bytes):
    """What the GCS publishes of a node's death: its id and state, no labels."""
    message = pubsub_pb2.PubMessage(key_id=node)
    message.node_address_and_liveness_message.state = gcs_pb2.GcsNodeInfo.DEAD
    return message


def test_a_tenant_hears_of_the_death_of_its_own_nodes_after_they_left(nodes, tmp_path):
    view = replies.View("acme", Jobs(tmp_path / "jobs"), ["acme"], nodes.seen_in(["acme"]))
    reply = pb.GcsSubscriberPollReply(pub_messages=[death_of(b"dead"), death_of(b"foreign")])
    replies.published(reply, view)
    assert [message.key_id for message in reply.pub_messages] == [b"dead"]


def test_a_tenant_sees_what_its_own_nodes_have_and_not_who_waits_for_them(nodes, tmp_path):
    view = replies.View("acme", Jobs(tmp_path / "jobs"), ["acme"], nodes.seen_in(["acme"]))
    reply = pb.GetAllResourceUsageReply()
    usage = reply.resource_usage_data
    for name in (b"lives", b"foreign"):
        row = usage.batch.add(node_id=name)
        row.resources_available["CPU"] = 2
        row.resource_load["CPU"] = 7
    usage.resource_load_by_shape.resource_demands.add().shape["CPU"] = 7
    usage.placement_group_load.placement_group_data.add()
    replies.resource_usage(reply, view)
    [row] = usage.batch
    assert (row.node_id, dict(row.resources_available), dict(row.resource_load)) == (b"lives", {"CPU": 2}, {})
    assert not usage.HasField("resource_load_by_shape") and not usage.HasField("placement_group_load")
