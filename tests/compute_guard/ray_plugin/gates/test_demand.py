"""What Ray's resources come to in the ledger's integers."""

from __future__ import annotations

from compute_guard.quota.limits import Amounts
from compute_guard.ray_plugin.gates.demand import demand_of, total

GROUP = "ab" * 14 + "cd" * 4


def test_resources_become_thousandths_and_bytes():
    amounts = demand_of({"CPU": 0.5, "GPU": 0.25, "memory": 1e9, "My-Disk": 2.0}).amounts
    assert dict(amounts) == {
        "cpu_milli": 500,
        "gpu_milli": 250,
        "memory_bytes": 1_000_000_000,
        "custom_my_disk": 2000,
        "workers": 1,
    }


def test_a_tenth_of_a_cpu_is_not_rounded_up_by_its_binary_fraction():
    assert demand_of({"CPU": 0.1 + 0.2}).amounts["cpu_milli"] == 300
    assert demand_of({"CPU": 0.0001}).amounts["cpu_milli"] == 1


def test_a_lease_without_resources_still_is_a_worker():
    assert demand_of({}).amounts == Amounts({"workers": 1})


def test_what_comes_out_of_a_placement_group_was_paid_for():
    demand = demand_of({f"CPU_group_0_{GROUP}": 1.0, f"CPU_group_{GROUP}": 1.0, "CPU": 1.0})
    assert demand.groups == {GROUP}
    assert demand.amounts == Amounts({"cpu_milli": 1000, "workers": 1})


def test_rays_own_markers_are_no_capacity():
    assert demand_of({"node:127.0.0.1": 0.001, "accelerator_type:T4": 0.001}).amounts == Amounts(
        {"workers": 1}
    )


def test_absurd_amounts_stay_within_what_the_ledger_can_hold():
    assert demand_of({"CPU": 1e300}).amounts["cpu_milli"] == 2**62
    assert demand_of({"CPU": -5}).amounts["cpu_milli"] == 0


def test_a_group_is_its_bundles_without_workers():
    assert total([demand_of({"CPU": 1.0}), demand_of({"CPU": 0.5})]) == Amounts({"cpu_milli": 1500})
