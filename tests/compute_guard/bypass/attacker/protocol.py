"""Attempts on the wire: the GCS behind its gate, raylets behind theirs, other tenants' workers."""

from __future__ import annotations

import json
import os

import grpc
import ray
from ray.core.generated import autoscaler_pb2
from ray.core.generated import gcs_service_pb2 as gcs
from ray.core.generated import node_manager_pb2 as nm

from attacker.tools import FACTS, Succeeded, attack, call, gate, must_be_refused

VICTIM_JOB = bytes.fromhex(FACTS["victim"]["job"])
VICTIM_ACTOR = bytes.fromhex(FACTS["victim"]["actor"])
VICTIM_GROUP = bytes.fromhex(FACTS["victim"]["group"])


def own_job() -> bytes:
    return bytes.fromhex(ray.get_runtime_context().get_job_id())


def answered(method: str, request, reply):
    return reply.FromString(call(gate(), method, request.SerializeToString()))


@attack
def mark_anothers_job_finished() -> str:
    return must_be_refused(
        gate(), "JobInfoGcsService/MarkJobFinished", gcs.MarkJobFinishedRequest(job_id=VICTIM_JOB)
    )


@attack
def kill_anothers_actor() -> str:
    request = gcs.KillActorViaGcsRequest(actor_id=VICTIM_ACTOR, force_kill=True, no_restart=True)
    return must_be_refused(gate(), "ActorInfoGcsService/KillActorViaGcs", request)


@attack
def look_up_anothers_actor_by_id() -> str:
    return must_be_refused(
        gate(), "ActorInfoGcsService/GetActorInfo", gcs.GetActorInfoRequest(actor_id=VICTIM_ACTOR)
    )


@attack
def restart_anothers_actor() -> str:
    request = gcs.RestartActorForLineageReconstructionRequest(actor_id=VICTIM_ACTOR)
    return must_be_refused(gate(), "ActorInfoGcsService/RestartActorForLineageReconstruction", request)


@attack
def report_anothers_actor_out_of_scope() -> str:
    request = gcs.ReportActorOutOfScopeRequest(actor_id=VICTIM_ACTOR)
    return must_be_refused(gate(), "ActorInfoGcsService/ReportActorOutOfScope", request)


@attack
def remove_anothers_placement_group() -> str:
    request = gcs.RemovePlacementGroupRequest(placement_group_id=VICTIM_GROUP)
    return must_be_refused(gate(), "PlacementGroupInfoGcsService/RemovePlacementGroup", request)


@attack
def list_everybodys_jobs() -> str:
    reply = answered("JobInfoGcsService/GetAllJobInfo", gcs.GetAllJobInfoRequest(), gcs.GetAllJobInfoReply)
    foreign = [
        job.job_id.hex() for job in reply.job_info_list if job.config.metadata["trainguard_tenant"] != "acme"
    ]
    if foreign:
        raise Succeeded(f"jobs {foreign} are listed")
    return f"{len(reply.job_info_list)} own"


@attack
def list_everybodys_actors() -> str:
    reply = answered(
        "ActorInfoGcsService/GetAllActorInfo", gcs.GetAllActorInfoRequest(), gcs.GetAllActorInfoReply
    )
    if any(actor.actor_id == VICTIM_ACTOR for actor in reply.actor_table_data):
        raise Succeeded("the victim's actor is listed")
    return f"{len(reply.actor_table_data)} own"


@attack
def list_everybodys_tasks() -> str:
    reply = answered("TaskInfoGcsService/GetTaskEvents", gcs.GetTaskEventsRequest(), gcs.GetTaskEventsReply)
    if any(event.job_id == VICTIM_JOB for event in reply.events_by_task):
        raise Succeeded("the victim's tasks are listed")
    return f"{len(reply.events_by_task)} own"


@attack
def list_everybodys_placement_groups() -> str:
    method, request = "PlacementGroupInfoGcsService/GetAllPlacementGroup", gcs.GetAllPlacementGroupRequest()
    reply = answered(method, request, gcs.GetAllPlacementGroupReply)
    if any(group.placement_group_id == VICTIM_GROUP for group in reply.placement_group_table_data):
        raise Succeeded("the victim's group is listed")
    return "not listed"


@attack
def list_all_nodes() -> str:
    reply = answered(
        "NodeInfoGcsService/GetAllNodeInfo", gcs.GetAllNodeInfoRequest(), gcs.GetAllNodeInfoReply
    )
    pools = {node.labels.get("trainguard.io/pool") for node in reply.node_info_list}
    if pools - {"acme", "shared"}:
        raise Succeeded(f"nodes of pools {pools} are listed")
    return str(sorted(pools))


@attack
def read_all_nodes_resources() -> str:
    method, request = "NodeResourceInfoGcsService/GetAllTotalResources", gcs.GetAllTotalResourcesRequest()
    reply = answered(method, request, gcs.GetAllTotalResourcesReply)
    if any(row.node_id.hex() == FACTS["victim"]["node"] for row in reply.resources_list):
        raise Succeeded("the victim's node is listed")
    return f"{len(reply.resources_list)} own"


@attack
def drain_a_node() -> str:
    request = autoscaler_pb2.DrainNodeRequest(node_id=bytes.fromhex(FACTS["victim"]["node"]), reason=2)
    return must_be_refused(gate(), "autoscaler.AutoscalerStateService/DrainNode", request)


@attack
def resize_a_node() -> str:
    return must_be_refused(gate(), "autoscaler.AutoscalerStateService/ResizeRayletResourceInstances")


@attack
def ask_the_autoscaler_for_more() -> str:
    return must_be_refused(gate(), "autoscaler.AutoscalerStateService/RequestClusterResourceConstraint")


@attack
def register_a_rogue_node() -> str:
    return must_be_refused(gate(), "NodeInfoGcsService/RegisterNode", gcs.RegisterNodeRequest())


@attack
def unregister_a_node() -> str:
    request = gcs.UnregisterNodeRequest(node_id=bytes.fromhex(FACTS["victim"]["node"]))
    return must_be_refused(gate(), "NodeInfoGcsService/UnregisterNode", request)


@attack
def report_a_foreign_worker_dead() -> str:
    return must_be_refused(
        gate(), "WorkerInfoGcsService/ReportWorkerFailure", gcs.ReportWorkerFailureRequest()
    )


@attack
def list_all_workers() -> str:
    return must_be_refused(gate(), "WorkerInfoGcsService/GetAllWorkerInfo")


@attack
def forge_a_job() -> str:
    request = gcs.AddJobRequest()
    request.data.job_id = b"\x77\0\0\0"
    request.data.config.metadata["job_submission_id"] = FACTS["victim"]["submission"]
    return must_be_refused(gate(), "JobInfoGcsService/AddJob", request)


@attack
def publish_to_everybody() -> str:
    request = gcs.GcsPublishRequest()
    request.pub_messages.add().log_batch_message.job_id = FACTS["victim"]["job"]
    return must_be_refused(gate(), "ControlPlanePubSubGcsService/GcsPublish", request)


@attack
def report_an_error_into_anothers_job() -> str:
    request = gcs.ReportJobErrorRequest()
    request.job_error.job_id = VICTIM_JOB
    return must_be_refused(gate(), "ObservabilityPubSubService/ReportJobError", request)


def kv(name: str, **fields) -> str:
    return must_be_refused(gate(), f"InternalKVGcsService/{name}", getattr(gcs, name + "Request")(**fields))


@attack
def plant_a_tracing_hook() -> str:
    return kv(
        "InternalKVPut", namespace=b"tracing", key=b"tracing_startup_hook", value=b"evil:hook", overwrite=True
    )


@attack
def replace_anothers_function() -> str:
    key = b"RemoteFunction:" + FACTS["victim"]["job"].encode() + b":" + b"0" * 8
    return kv("InternalKVPut", namespace=b"fun", key=key, value=b"evil", overwrite=True)


@attack
def read_anothers_functions() -> str:
    request = gcs.InternalKVKeysRequest(namespace=b"fun", prefix=b"")
    reply = answered("InternalKVGcsService/InternalKVKeys", request, gcs.InternalKVKeysReply)
    foreign = [key for key in reply.results if b":" + FACTS["victim"]["job"].encode() in key]
    if foreign:
        raise Succeeded(f"{foreign[:2]} are listed")
    return f"{len(reply.results)} own"


@attack
def read_anothers_job_record() -> str:
    key = b"_ray_internal_job_info_" + FACTS["victim"]["submission"].encode()
    return kv("InternalKVGet", namespace=b"job", key=key)


@attack
def list_job_records() -> str:
    request = gcs.InternalKVKeysRequest(namespace=b"job", prefix=b"_ray_internal_job_info_")
    reply = answered("InternalKVGcsService/InternalKVKeys", request, gcs.InternalKVKeysReply)
    if any(FACTS["victim"]["submission"].encode() in key for key in reply.results):
        raise Succeeded("the victim's record is listed")
    return f"{len(reply.results)} own"


@attack
def delete_the_session() -> str:
    return kv("InternalKVDel", namespace=b"session", key=b"session_name")


@attack
def poison_a_package_of_another_tenant() -> str:
    request = gcs.InternalKVPutRequest(key=b"gcs://_ray_pkg_shared.zip", value=b"evil", overwrite=True)
    call(gate(), "InternalKVGcsService/InternalKVPut", request.SerializeToString())
    return "went to a name of its own (checked by the test)"


@attack
def send_malformed_protobufs() -> str:
    for method in ("ActorInfoGcsService/RegisterActor", "InternalKVGcsService/InternalKVPut"):
        must_be_refused(gate(), method, b"\xff\xff\xff\xff\x01garbage")
    must_be_refused(FACTS["own_gate"], "NodeManagerService/RequestWorkerLease", b"\xff\xffgarbage")
    return "refused"


@attack
def call_a_method_nobody_knows() -> str:
    return must_be_refused(gate(), "JobInfoGcsService/NoSuchMethod")


@attack
def open_the_syncers_stream() -> str:
    with grpc.insecure_channel(gate()) as channel:
        metadata = [("authorization", "Bearer " + os.environ["RAY_AUTH_TOKEN"])]
        stream = channel.stream_stream("/ray.rpc.syncer.RaySyncer/StartSync")(
            iter([b""]), metadata=metadata, timeout=8
        )
        try:
            next(iter(stream))
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    raise Succeeded("the stream was opened")


@attack
def reach_the_gcs_beside_its_gate() -> str:
    method, request = "JobInfoGcsService/GetAllJobInfo", gcs.GetAllJobInfoRequest()
    tokenless = must_be_refused(FACTS["raw_gcs"], method, request, token="")
    return must_be_refused(FACTS["raw_gcs"], method, request) + " / " + tokenless


@attack
def reach_the_gate_without_or_with_a_guessed_token() -> str:
    method, request = "JobInfoGcsService/GetAllJobInfo", gcs.GetAllJobInfoRequest()
    must_be_refused(gate(), method, request, token="")
    return must_be_refused(gate(), method, request, token="ray_system_guess")


@attack
def reach_raylets_beside_their_gates() -> str:
    said = [
        must_be_refused(address, "NodeManagerService/GetNodeStats", nm.GetNodeStatsRequest())
        for address in FACTS["raylets"]
    ]
    return "; ".join(said)


@attack
def shut_a_raylet_down_through_its_gate() -> str:
    return must_be_refused(FACTS["own_gate"], "NodeManagerService/ShutdownRaylet", nm.ShutdownRayletRequest())


@attack
def resize_a_raylet_through_its_gate() -> str:
    return must_be_refused(FACTS["own_gate"], "NodeManagerService/ResizeLocalResourceInstances")


@attack
def read_a_nodes_workers_through_its_gate() -> str:
    return must_be_refused(FACTS["victim_gate"], "NodeManagerService/GetNodeStats")


def lease(job: bytes, address: str, **resources: float) -> str:
    request = nm.RequestWorkerLeaseRequest()
    spec = request.lease_spec
    spec.job_id, spec.lease_id = job, os.urandom(28)
    spec.required_resources.update(resources or {"CPU": 1.0})
    try:
        raw = call(address, "NodeManagerService/RequestWorkerLease", request.SerializeToString(), seconds=6)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    reply = nm.RequestWorkerLeaseReply.FromString(raw)
    if reply.worker_address.worker_id:
        raise Succeeded("a worker was leased")
    return reply.scheduling_failure_message or "not granted"


@attack
def lease_for_anothers_job() -> str:
    return lease(VICTIM_JOB, FACTS["own_gate"]) + " / " + lease(VICTIM_JOB, FACTS["victim_gate"])


@attack
def lease_for_rays_own_job() -> str:
    return lease(b"\x01\0\0\0", FACTS["own_gate"]) + " / " + lease(b"\x63\0\0\0", FACTS["own_gate"])


@attack
def lease_out_of_anothers_placement_group() -> str:
    said = lease(own_job(), FACTS["own_gate"], **{f"CPU_group_{FACTS['victim']['group']}": 1.0})
    assert "placement group" in said, said
    return said


@attack
def kill_anothers_actor_through_the_raylet() -> str:
    request = nm.KillLocalActorRequest(intended_actor_id=VICTIM_ACTOR, force_kill=True)
    return must_be_refused(FACTS["victim_gate"], "NodeManagerService/KillLocalActor", request)


@attack
def free_anothers_objects() -> str:
    raw = os.urandom(20) + VICTIM_JOB + b"\1\0\0\0"
    return must_be_refused(
        FACTS["victim_gate"],
        "NodeManagerService/FreeLocalObjects",
        nm.FreeLocalObjectsRequest(object_ids=[raw]),
    )


@attack
def speak_to_anothers_worker() -> str:
    return must_be_refused(FACTS["victim"]["worker"], "CoreWorkerService/Exit")


@attack
def forge_a_token_review() -> str:
    import ssl
    import urllib.request

    body = json.dumps({"spec": {"token": "ray_system_guess"}}).encode()
    url = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    request = urllib.request.Request(url + "/apis/authentication.k8s.io/v1/tokenreviews", data=body)
    with urllib.request.urlopen(request, context=ssl._create_unverified_context(), timeout=8) as answer:
        status = json.loads(answer.read())["status"]
    if status["authenticated"]:
        raise Succeeded("a guessed token is believed")
    return "not authenticated"


@attack
def speak_on_the_gates_own_line() -> str:
    import socket

    host, port = FACTS["link"].split(":")
    with socket.create_connection((host, int(port)), timeout=5) as line:
        line.sendall(json.dumps({"token": os.environ["RAY_AUTH_TOKEN"], "address": "x"}).encode() + b"\n")
        line.settimeout(5)
        said = line.recv(200)
    if said:
        raise Succeeded(f"the head answered {said!r}")
    return "hung up on"


@attack
def flood_the_gate() -> str:
    import concurrent.futures
    import time

    def junk(_n: int) -> str:
        try:
            return must_be_refused(gate(), "ActorInfoGcsService/RegisterActor", b"\xff\xffjunk")
        except grpc.RpcError as error:
            return error.code().name

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(junk, range(200)))
    begun = time.monotonic()
    answered("JobInfoGcsService/GetAllJobInfo", gcs.GetAllJobInfoRequest(), gcs.GetAllJobInfoReply)
    if time.monotonic() - begun > 5:
        raise Succeeded("the gate was out of order afterwards")
    return "200 refused, and it goes on"


@attack
def read_data_of_others_through_the_gate() -> str:
    """Beta's `secret` exists; nothing was declared; reads are made up; a worker's token is no credential."""
    import ssl
    import urllib.error
    import urllib.request

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(os.environ["TRAINGUARD_READS_CA"])
    seen = set()
    questions = [("open", {"ref": ref, "purpose": "train"}) for ref in ("beta/secret", "beta/secret@1")]
    questions += [("open", {"ref": "secret", "purpose": "train", "tenant": "beta"})]
    questions += [
        (operation, {"read": read, "path": "../../keys/signing.pem", "task": 0, "counts": {}})
        for operation in ("collect", "leave", "record", "file", "nonsense")
        for read in ("read_0", "../../../etc/passwd", "")
    ]
    for token in (os.environ["TRAINGUARD_TOKEN"], os.environ["RAY_AUTH_TOKEN"], "guess", ""):
        for operation, body in questions:
            request = urllib.request.Request(
                f"{os.environ['TRAINGUARD_READS']}/{operation}",
                data=json.dumps(body).encode(),
                headers={"Authorization": f"Bearer {token}"},
            )
            try:
                with urllib.request.urlopen(request, timeout=20, context=context) as answer:
                    raise Succeeded(f"{operation} {body} was answered: {answer.read(200)!r}")
            except urllib.error.HTTPError as error:
                seen.add(error.code)
    return f"refused with {sorted(seen)}"


@attack
def speak_broken_http2_to_the_gates() -> str:
    import socket

    hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    nonsense = (
        b"GET / HTTP/1.0\r\n\r\n",
        hello + b"\xff\xff\xff\0\0\0\0\0\1",  # a frame beyond all bounds
        hello + b"\0\0\1\1\4\0\0\0\1\xff",  # headers of no table
        hello + b"\0\0\4\x08\0\0\0\0\0\x7f\xff\xff\xff" * 3,  # a window beyond all bounds
        hello
        + b"\0\0\0\1\0\0\0\0\1"
        + (b"\0\x40\0\x09\0\0\0\0\1" + b"x" * 16_384) * 8,  # headers without end
    )
    for address in (gate(), FACTS["own_gate"]):
        host, port = address.split(":")
        for words in nonsense:
            with socket.create_connection((host, int(port)), timeout=10) as line:
                line.settimeout(10)
                try:
                    line.sendall(words)
                    while line.recv(65_536):
                        pass  # settings and a farewell; then the gate hangs up
                except ConnectionError:
                    pass
    answered("JobInfoGcsService/GetAllJobInfo", gcs.GetAllJobInfoRequest(), gcs.GetAllJobInfoReply)
    return "hung up on, and it goes on"
