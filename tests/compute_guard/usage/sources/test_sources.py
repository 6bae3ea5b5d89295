"""Where readings come from: files, exporters, the NVIDIA library, and made-up loads."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from compute_guard.usage.samples import to_table
from compute_guard.usage.sources import Source, until_next
from compute_guard.usage.sources.nvml import NvmlSource
from compute_guard.usage.sources.prometheus import PrometheusSource
from compute_guard.usage.sources.replay import ReplaySource
from compute_guard.usage.sources.synthetic import LOADS, SECOND, Load, SyntheticSource
from guard_core.errors import UserError

DCGM = b"""# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a",modelName="H100",Hostname="n1",pod="one"} 97
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a",modelName="H100",Hostname="n1",pod="two"} 97
DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-b",modelName="H100",Hostname="n1"} 3
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-a",modelName="H100",Hostname="n1"} 2048
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0",UUID="GPU-a",modelName="H100",Hostname="n1"} 5000
DCGM_FI_PROF_PCIE_TX_BYTES{gpu="0",UUID="GPU-a",modelName="H100",Hostname="n1"} 100
DCGM_FI_PROF_PCIE_RX_BYTES{gpu="0",UUID="GPU-a",modelName="H100",Hostname="n1"} 50
unrelated_metric 5
"""


def test_a_dcgm_scrape_gives_one_sample_per_device_in_our_units():
    frame = PrometheusSource("http://exporter").parse(DCGM, ts_ns=7)
    assert [d.uuid for d in frame.devices] == ["GPU-a", "GPU-b"]
    assert frame.metric("util_percent").tolist() == [97, 3]  # two pods on a shared device are not two devices
    assert frame.metric("memory_used_bytes")[0] == 2 * 2**30
    assert frame.metric("energy_j")[0] == 5.0
    assert frame.metric("pcie_bytes_per_s")[0] == 150
    assert np.isnan(frame.metric("pcie_bytes_per_s")[1])
    assert not frame.synthetic


def test_slices_of_one_gpu_are_devices_of_their_own():
    line = 'DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a",GPU_I_ID="%d"} 5\n'
    text = "".join(line % slice_id for slice_id in (1, 2)).encode()
    assert len(PrometheusSource("http://exporter", node="n").parse(text, 1)) == 2


def test_rays_own_metrics_are_read_too():
    text = (
        b'ray_node_gpus_utilization{GpuDeviceName="H100",GpuIndex="3",ip="10.0.0.4",SessionName="s"} 44.0\n'
    )
    frame = PrometheusSource("http://ray").parse(text, 1)
    assert (frame.devices[0].node, frame.devices[0].index) == ("10.0.0.4", 3)
    assert frame.metric("util_percent").tolist() == [44]


def test_lines_an_exporter_garbles_are_counted_over_the_scrapes():
    source = PrometheusSource("http://exporter")
    source.parse(DCGM + b"garbage {\n", 1)
    source.parse(DCGM + b"garbage {\n", 2)
    assert source.malformed == 2


def test_devices_beyond_the_limit_are_not_remembered():
    source = PrometheusSource("http://exporter", max_devices=1)
    assert len(source.parse(DCGM, 1)) == 1


def test_a_flood_of_repeated_lines_and_invented_devices_is_one_reading_each_and_bounded():
    line = 'DCGM_FI_DEV_GPU_UTIL{{gpu="{}",UUID="GPU-{}",Hostname="n"}} {}\n'
    source = PrometheusSource("http://x", max_devices=4)
    once = "".join(line.format(i % 8, i, 50 + i) for i in range(3))
    plain = source.parse(once.encode(), 1)
    flood = source.parse((once * 10).encode(), 2)
    assert (len(plain), len(flood)) == (3, 3)
    assert flood.metric("util_percent").tolist() == plain.metric("util_percent").tolist() == [50, 51, 52]
    invented = once + "".join(line.format(0, f"x{i}", 99) for i in range(1_000))
    frame = source.parse(invented.encode(), 3)
    assert len(frame.devices) == 4
    assert frame.metric("util_percent").tolist()[:3] == [50, 51, 52]


def test_an_exporter_that_is_down_is_one_sentence():
    with pytest.raises(UserError, match="check that the exporter runs"):
        next(PrometheusSource("http://127.0.0.1:9").frames())
    with pytest.raises(UserError, match="must start with http"):
        next(PrometheusSource("file:///etc/passwd").frames())


def test_scrapes_follow_one_another_at_the_interval():
    slept = []
    source = PrometheusSource(
        "http://x", ticks=3, fetch=lambda _: DCGM, now_ns=iter([1, 2, 3]).__next__, sleep=slept.append
    )
    assert [f.ts_ns[0] for f in source.frames()] == [1, 2, 3]
    assert slept == [15.0, 15.0]


@pytest.mark.parametrize("taking_ns", [0, 1, 999_999_999, 4 * SECOND])
def test_the_next_scrape_falls_in_the_middle_of_a_cell_however_long_this_one_took(taking_ns):
    now = 1_800_000_000 * SECOND + taking_ns
    wait = until_next(2.0, now)
    assert 0 < wait <= 2.0
    assert (now + round(wait * 1e9)) % (2 * SECOND) == SECOND


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_recording_replays_step_by_step(tmp_path, suffix):
    table = to_table(SyntheticSource((Load("training"), Load("free", index=1)), samples=6, seed=2).read())
    path = tmp_path / f"recording{suffix}"
    if suffix == ".csv":
        csv.write_csv(table.drop_columns(["processes"]), path)
    else:
        pq.write_table(table, path)
    frames = list(ReplaySource(path).frames())
    assert [len(f) for f in frames] == [2] * 6
    assert all(f.synthetic for f in frames)


def test_a_recording_with_words_for_numbers_names_the_file(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("ts_ns,node,gpu_uuid,synthetic,util_percent\n1,a,GPU-1,false,lots\n")
    with pytest.raises(UserError, match=r"bad\.csv"):
        ReplaySource(path).read()


def test_a_recording_that_is_not_there_names_the_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.parquet does not exist"):
        list(ReplaySource(tmp_path / "none.parquet").frames())


def test_without_a_driver_nvml_says_why_and_what_to_do():
    problem = NvmlSource().unavailable()
    if problem is None:  # a machine with a GPU: then it must give readings
        frame = next(NvmlSource(ticks=1).frames())
        assert len(frame) >= 1
        assert not frame.synthetic
        assert np.isfinite(frame.metric("power_w")).any()
        return
    assert problem.source == "nvml"
    assert "NVML" in problem.reason or "GPU" in problem.reason
    with pytest.raises(UserError, match=problem.remedy.split(",")[0]):
        next(NvmlSource().frames())


def test_a_missing_nvidia_package_gives_the_install_line():
    code = (
        "import sys, json; sys.modules['pynvml'] = None\n"
        "from compute_guard.usage.sources.nvml import NvmlSource\n"
        "print(json.dumps(NvmlSource().unavailable().remedy))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "trainguard[gpu]"' in json.loads(out.stdout)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    one, two, other = (SyntheticSource((Load("training"),), samples=30, seed=s).read() for s in (1, 1, 2))
    np.testing.assert_array_equal(one.metric("power_w"), two.metric("power_w"))
    assert (one.metric("power_w") != other.metric("power_w")).any()


@pytest.mark.parametrize("kind", sorted(LOADS))
def test_a_made_up_load_stays_within_what_the_device_can_do(kind):
    frame = SyntheticSource((Load(kind),), samples=200, seed=5).read()
    util, power, energy = frame.metric("util_percent"), frame.metric("power_w"), frame.metric("energy_j")
    assert util.min() >= 0
    assert util.max() <= 100
    assert power.max() <= 720
    assert (np.diff(energy) >= 0).all()
    assert frame.metric("temperature_c").max() < 95
    assert (frame.metric("memory_used_bytes") <= 80 * 2**30).all()


def test_a_load_may_change_into_another_at_its_onset():
    frame = SyntheticSource((Load("idle-hold", after="mining-full", onset=10),), samples=20, seed=5).read()
    assert frame.metric("util_percent")[:10].max() == 0
    assert frame.metric("util_percent")[10:].min() > 90


def test_a_load_nobody_knows_is_refused_with_the_list():
    with pytest.raises(UserError, match="choose one of"):
        SyntheticSource((Load("partying"),), samples=5, seed=1).read()


def test_all_sources_speak_the_same_protocol(tmp_path):
    sources = (SyntheticSource((), 0, 0), ReplaySource(tmp_path), NvmlSource(), PrometheusSource("http://x"))
    assert all(isinstance(source, Source) for source in sources)
