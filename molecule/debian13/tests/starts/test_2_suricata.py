# Copyright (c) 2026, baremetal.noiommu contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The distribution's Suricata, with DPDK's options as it is shipped, sees what a NIC receives.

It names no device to DPDK (there is no -a), and no IOVA mode. Its configuration names a NIC of its authors', which is
replaced, and DPDK asks for processors of its own.
"""

from __future__ import annotations

import re

from live import RUN, on
from traffic import Testpmd

HOST = "delta"
RECEIVER, SENDER = "0000:00:10.0", "0000:01:00.0"
DIRECTORY = "/run/starts"
# A smaller pool than the shipped one, of which its cache is a whole part: the host has 192 MiB in huge pages.
SURICATA = (
    f"suricata --dpdk -c /etc/suricata/suricata.yaml -S /dev/null -l {DIRECTORY}"
    f" --set threading.set-cpu-affinity=yes --set dpdk.interfaces.0.interface={RECEIVER}"
    " --set dpdk.interfaces.0.threads=1 --set dpdk.interfaces.0.mempool-size=16448"
)
# Its counters are written every few seconds, and at its end.
RUN_IT = f"""
rm -rf {DIRECTORY}; mkdir {DIRECTORY}; cd {DIRECTORY}; touch stats.log
timeout 400 {SURICATA} > output 2>&1 &
for second in $(seq 300); do
    sleep 1
    grep -q '^decoder.pkts ' stats.log && break
    kill -0 $! || break
done
kill $!
wait $!
cat output stats.log
"""


def test_the_configuration_is_the_shipped_one():
    assert on(HOST, "dpkg --verify suricata | grep /etc/suricata/suricata.yaml || true") == ""
    assert on(HOST, "suricata --build-info | grep -i 'DPDK support'").split()[-1] == "yes"


def test_it_counts_packets(capsys):
    # The sender first: Suricata's DPDK takes every NIC that is free.
    sender = Testpmd(str(RUN / "ssh_config"), HOST, [SENDER], "txonly", eal="--file-prefix=sender")
    try:
        output = on(HOST, RUN_IT)
    finally:
        sent = sender.finish()["tx"]
    seen = [int(number) for number in re.findall(r"^decoder\.pkts\s*\|[^|]*\|\s*(\d+)", output, re.MULTILINE)]
    with capsys.disabled():
        print(f"\nsent {sent}, Suricata counted {seen}")
    assert seen and 100 < seen[-1] <= sent, output
