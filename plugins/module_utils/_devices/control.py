# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests to the kernel that move a device between drivers: one method per request, with errors explained.

Every request can be repeated: asking for the present state does nothing. So a run that was interrupted can be finished
or rolled back from wherever it stopped.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import struct
import threading
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any, Callable, Iterable

from .._base.command import Runner
from .._base.errors import HostError
from .._base.fs import Root
from .._base.paths import MODULE, PA_HINT
from .._host.iommu import NODES, OUR_PREFIX, chardev_of
from .._host.kernel_log import read_log
from .._host.pci import NET, Interface, PciBus, PciDevice
from .._host.processes import name_of, open_files
from .hanging import refuse_hanging
from .hanging import unbind as request_unbind
from .identity import permanent_mac
from .sriov import NUMBER, count

if TYPE_CHECKING:
    from .writer import Writer

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_VFIO_NODE_WAIT = 5.0
_INTERFACE_WAIT = 10.0
_RENAME_WAIT = 3.0

# What the kernel module means by each errno of a write to its `add` and `remove` parameters.
_ADD = {
    errno.EINVAL: ("the address is malformed", "Correct the address."),
    errno.ENODEV: ("there is no such PCI device", "Check the hardware: it may have been unplugged meanwhile."),
    errno.EBUSY: ("a driver is bound to it", "Find out what binds it again after it was unbound, and stop that."),
    errno.EEXIST: ("it has an IOMMU group already", "A hardware IOMMU protects it: use the backend iommu."),
    errno.EPERM: (
        "CAP_SYS_RAWIO is missing, or the kernel is locked down",
        "Run with become: true, outside of containers; under lockdown (Secure Boot) insecure mode is not possible.",
    ),
    errno.EOPNOTSUPP: (
        "a hardware IOMMU is active, or a device cannot use physical addresses here, as where memory is encrypted",
        "The kernel log has the module's own reason (`dmesg | grep noiommu`). With an IOMMU, use the backend iommu.",
    ),
}
# An errno can have several causes, and the module's log line says which; this is the remedy for each.
_REASON = re.compile(r"not added: (.*)")
_OTHER_HOST = "Insecure mode cannot work on this host: use one with an IOMMU."
_REMEDIES = (
    ("a hardware IOMMU is active", "Use the backend iommu."),
    ("memory is encrypted", _OTHER_HOST),
    ("in a Xen PV domain", _OTHER_HOST),
    ("firmware says", "Use a device that is not behind an external port."),
)
_REMOVE = {
    errno.ENODEV: ("the module does not hold it", "Nothing to do."),
    errno.EBUSY: ("VFIO still uses it", "Stop the application that uses it, then run again."),
    errno.EPERM: ("CAP_SYS_RAWIO is missing", "Run with become: true, outside of containers."),
}


class Kernel:
    """Requests to the running kernel."""

    def __init__(self, root: Root, runner: Runner) -> None:
        self.root = root
        self.runner = runner
        self._looking = threading.Lock()

    @cached_property
    def _writer(self) -> Writer:
        # A run that unbinds nothing does not need it.
        from .writer import Writer

        return Writer()

    def before_threads(self) -> None:
        """Do what is safe only as long as there is one thread, for requests from several."""
        self._writer.start()

    # --- drivers ---

    def override(self, device: PciDevice, driver: str | None) -> None:
        """Let only this driver bind, or any if None."""
        refuse_hanging(self.root, device.address)
        if device.driver_override != driver:
            # An empty line clears it.
            self.root.write_sysfs(device.path + "/driver_override", (driver or "") + "\n")

    def unbind(self, device: PciDevice) -> None:
        """Unbind the device from whatever driver has it."""
        driver = device.driver
        if driver is None:
            return
        refuse_hanging(self.root, device.address)
        names = [name for name in self.root.listdir(NET) if self.root.target(NET, name).startswith(device.real + "/")]
        try:
            self.request_unbind(device, driver, lambda: self._holders(device, names))
        except HostError:
            if device.driver is not None:  # it may have been unbound meanwhile
                raise

    def request_unbind(self, device: PciDevice, driver: str, holders: Callable[[], list[str]]) -> None:
        """Ask the driver to release the device."""
        request_unbind(self.root, self._writer, device.address, driver, holders)
        if device.driver == driver:
            raise HostError(
                "kernel_write",
                "The kernel did not unbind %s from %s." % (device.address, driver),
                evidence=["%s/driver: %s" % (device.path, driver)] + self.log_lines(device.address),
                remedy="Look at the last lines of `dmesg` for the driver's reason.",
            )

    def _holders(self, device: PciDevice, names: list[str]) -> list[str]:
        """Say what may keep a device from being unbound."""
        lines = [line for name in names for line in self.log_lines("waiting for %s " % name)]
        return lines + [line for users in self.users(nodes_of(self.root, device)).values() for line in users]

    def bind(self, device: PciDevice, driver: str) -> None:
        """Bind the device to a driver, load its module if needed, and check that it is bound."""
        if device.driver == driver:
            return
        directory = "/sys/bus/pci/drivers/" + driver
        if not self.root.exists(directory):
            self.load(driver)
        reason = self._try_binding(device, driver)
        if device.driver == driver:
            return
        evidence = ["driver now: %s" % (device.driver or "none")] + ([reason] if reason else [])
        raise HostError(
            "bind",
            "%s did not take %s." % (driver, device.address),
            evidence=evidence + self.log_lines(device.address),
            remedy=self._bind_remedy(device, driver),
        )

    def _try_binding(self, device: PciDevice, driver: str) -> str:
        """Return why the driver did not take the device, if it did not."""
        request = ("/sys/bus/pci/drivers/%s/bind" % driver, device.address)
        try:
            self.root.write_sysfs(*request)
        except HostError as exc:
            override = device.driver_override
            if exc.errno != errno.ENODEV or override is not None:
                return "; ".join(exc.evidence)
        else:
            return ""
        # UIO drivers match no device ids: they were bound by an override that has been cleared since.
        try:
            self.override(device, driver)
            self.root.write_sysfs(*request)
        except HostError as exc:
            return "; ".join(exc.evidence)
        finally:
            self.override(device, None)
        return ""

    def _bind_remedy(self, device: PciDevice, driver: str) -> str:
        if driver == "vfio-pci" and device.iommu_group is None:
            return "VFIO answers EINVAL where a device has no IOMMU group: check that the backend made one."
        return "Look for the driver's reason in `dmesg`."

    # --- groups of the noiommu module ---

    def add(self, device: PciDevice, pa_hint: bool) -> None:
        """Have the noiommu module make a group for an unbound device, with or without the hint to DPDK."""
        if self.root.exists(NODES, OUR_PREFIX + device.address):
            return
        flag = "Y" if pa_hint else "N"
        if self.root.read_text(PA_HINT) != flag:
            self.root.write_sysfs(PA_HINT, flag + "\n")
        self._module_request("add", device.address, _ADD)

    def remove(self, device: PciDevice) -> None:
        """Have the noiommu module remove the device's group."""
        if self.root.exists(NODES, OUR_PREFIX + device.address):
            self._module_request("remove", device.address, _REMOVE)

    def _module_request(self, verb: str, address: str, meanings: dict[int, tuple[str, str]]) -> None:
        try:
            self.root.write_sysfs("%s/parameters/%s" % (MODULE, verb), address + "\n")
        except HostError as exc:
            if exc.errno not in meanings:
                raise
            meaning, remedy = meanings[exc.errno]
            lines = self.log_lines(address)
            reason = _REASON.search(lines[-1]) if lines else None
            if reason is not None:  # an errno can have several causes: the module's log line says which
                meaning = reason.group(1)
                remedy = next((known for start, known in _REMEDIES if meaning.startswith(start)), remedy)
            raise HostError(
                "module_" + verb,
                "The noiommu module refused to %s %s: %s." % (verb, address, meaning),
                evidence=exc.evidence + lines,
                remedy=remedy,
                errno=exc.errno,
            ) from exc

    def wait_for_group(self, device: PciDevice) -> str:
        """Return the group's character device once it is there."""
        number = device.iommu_group
        if number is None:
            raise HostError(
                "group",
                "%s has no IOMMU group after binding." % device.address,
                evidence=["%s/iommu_group: absent" % device.path] + self.log_lines(device.address),
                remedy="Look at the last lines of `dmesg`.",
            )
        chardev = chardev_of(self.root, number) or ""
        if not _wait(lambda: self.root.exists(chardev), _VFIO_NODE_WAIT):
            raise HostError(
                "group",
                "%s is bound, but %s did not appear." % (device.address, chardev),
                evidence=["%s: absent after %d s" % (chardev, _VFIO_NODE_WAIT)],
                remedy="Check that devtmpfs is mounted on /dev and that udev runs.",
            )
        return chardev

    # --- virtual functions ---

    def set_functions(self, pf: PciDevice, number: int) -> None:
        """Set how many virtual functions a physical one has."""
        if count(self.root, pf) not in (0, number):
            # sriov_numvfs cannot go from one nonzero value to another: write 0 first.
            self._write_number(pf, 0)
        if count(self.root, pf) != number:
            self._write_number(pf, number)

    def _write_number(self, pf: PciDevice, number: int) -> None:
        reason = ""
        try:
            self.root.write_sysfs("%s/%s" % (pf.path, NUMBER), "%d\n" % number)
        except HostError as exc:
            reason = "; ".join(exc.evidence)
        now = count(self.root, pf)
        if now == number and len(pf.functions) == number:
            return
        evidence = ["%s/%s: %d" % (pf.path, NUMBER, now), "virtual functions there: %d" % len(pf.functions)]
        raise HostError(
            "sriov",
            "%s did not set the number of virtual functions to %d." % (pf.address, number),
            evidence=evidence + ([reason] if reason else []) + self.log_lines(pf.address),
            remedy="Look for the reason of its driver (%s) in `dmesg`. If PCI bus numbers or memory are short, boot "
            "with pci=assign-busses or pci=realloc." % (pf.driver or "none is bound"),
        )

    def probe(self, device: PciDevice) -> None:
        """Offer a device to the host's drivers."""
        if device.driver is None:
            try:
                self.root.write_sysfs("/sys/bus/pci/drivers_probe", device.address)
            except HostError:  # no driver matches it
                pass

    # --- modules and parameters ---

    def load(self, module: str) -> None:
        """Load a module and explain a failure with modprobe's own words."""
        done = self.runner.run("modprobe", module)
        if done.rc == 0:
            return
        said = (done.stderr or done.stdout).strip()
        raise HostError(
            "modprobe",
            "The kernel module %s could not be loaded." % module,
            evidence=["modprobe %s: %s" % (module, said or "exit %d" % done.rc)] + self.log_lines(module),
            remedy=_load_remedy(module, said),
        )

    def unload(self, module: str) -> bool:
        """Unload a module and the modules that only it needed; False if something uses it."""
        return self.runner.run("modprobe", "-r", module).rc == 0

    # --- interfaces ---

    def restore_links(self, wanted: dict[str, list[dict[str, Any]]]) -> list[str]:
        """Wait for the interfaces of released devices, and set those up again that were up.

        ``wanted`` has the recorded interfaces by device address. Return the names of those that are not as they were.
        """
        pairs: list[tuple[dict[str, Any], Interface | None]] = []

        def all_present() -> bool:
            bus = PciBus(self.root)
            pairs[:] = [
                (interface, next((now for now in _interfaces(bus, address) if _same(interface, now)), None))
                for address, interfaces in wanted.items()
                for interface in interfaces
            ]
            return all(now is not None for _one, now in pairs)

        def all_named() -> bool:
            all_present()
            return all(recorded["name"] == now.name for recorded, now in pairs if now is not None)

        _wait(all_present, _INTERFACE_WAIT)
        # udev renames a new interface as long as it is down.
        _wait(all_named, _RENAME_WAIT)
        missing = [recorded["name"] for recorded, now in pairs if now is None]
        for recorded, now in pairs:
            if now is None:
                continue
            try:
                if recorded.get("mtu") not in (None, now.mtu):
                    self.root.write_sysfs("/sys/class/net/%s/mtu" % now.name, "%d" % recorded["mtu"])
                if recorded["up"] and not now.up:
                    self.link_up(now.name)
            except (HostError, OSError):  # it is just being renamed or removed
                missing.append(recorded["name"])
        return missing

    def link_up(self, name: str) -> None:
        """Set an interface administratively up."""
        self._set_link(name, _IFF_UP)

    def link_down(self, name: str) -> None:
        """Set an interface administratively down."""
        self._set_link(name, 0)

    def _set_link(self, name: str, flag: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            request = struct.pack("16sH14x", name.encode(), 0)
            flags = struct.unpack_from("16sH", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
            fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", name.encode(), flags & ~_IFF_UP | flag))

    # --- evidence ---

    def users(self, nodes: Iterable[str]) -> dict[str, list[str]]:
        """Describe the processes that have device files open, by file."""
        wanted = [node for node in nodes if self.root.exists(node)]
        with self._looking:  # to open a file is to look, and another thread must not take that for use
            tried = {node: self._try(node) for node in wanted}
        # All descriptors of all processes take long to read.
        held = {node for node, answer in tried.items() if answer != 0}
        found: dict[str, list[str]] = {}
        pairs = {(file.path, file.pid) for file in open_files(self.root, held)} if held else set()
        for node, pid in sorted(pairs):
            found.setdefault(node, []).append("%s is open in process %s (%s)" % (node, pid, name_of(self.root, pid)))
        for node in held.difference(found):
            if tried[node] == errno.EBUSY:
                found[node] = ["%s: opening it gives EBUSY; the process that has it open is not visible" % node]
        return found

    def _try(self, chardev: str) -> int | None:
        """Open a VFIO group, which works once at a time: 0 if nobody has it open, or the error. None if not tried.

        Opening other files might affect the device.
        """
        if not self.root.is_live or not chardev.startswith("/dev/vfio/"):
            return None
        try:
            os.close(os.open(chardev, os.O_RDWR | os.O_CLOEXEC))
        except OSError as exc:
            return exc.errno
        return 0

    def log_lines(self, needle: str) -> list[str]:
        """Return the kernel log's last lines about something, as evidence for a failure."""
        return ["dmesg: " + line.text for line in read_log(self.root).lines if needle in line.text][-3:]


def nodes_of(root: Root, device: PciDevice) -> list[str]:
    """Return the files through which processes drive a device: VFIO's group, UIO's, and those of RDMA verbs."""
    chardev = chardev_of(root, device.iommu_group)
    found = [chardev] if chardev else []
    for kind, folder in (("uio", "/dev"), ("infiniband_verbs", "/dev/infiniband")):
        found += ["%s/%s" % (folder, name) for name in root.listdir(device.path, kind)]
    return found


def _interfaces(bus: PciBus, address: str) -> list[Interface]:
    device = bus.get(address)
    return device.interfaces if device is not None else []


def _same(recorded: dict[str, Any], now: Interface) -> bool:
    mac = permanent_mac(recorded)
    # Without a permanent address, the driver makes up a new one each time.
    return mac in (now.permanent, now.mac) if mac else recorded["name"] == now.name


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def _load_remedy(module: str, said: str) -> str:
    if said.startswith("modprobe: ") and "ENOENT" in said:
        return "Install the package kmod: there is no modprobe."
    if "Key was rejected" in said or "Required key not available" in said:
        return "Secure Boot is on and the module's signature is not trusted: enrol DKMS's key (mokutil), then reboot."
    if "not found" in said and module == "noiommu":
        return "Build it for the running kernel first: run the role baremetal.noiommu.kmod."
    if "not found" in said:
        return "Install the kernel package that carries this module, or boot the kernel whose modules are installed."
    if "Operation not permitted" in said:
        return "Run with become: true; if it was root, kernel lockdown or modules_disabled forbids loading."
    return "Look at the last lines of `dmesg`."
