# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The declared list of devices as one transaction: select, guard, plan, apply, remember, or put everything back."""

from __future__ import annotations

from typing import Any, NamedTuple

from . import _insecure, _persist
from ._apply import Transaction, release_target
from ._backend import DKMS, IOMMU, Needs, choose, module_installed, module_loaded, needs, target, with_dependencies
from ._errors import HostError, Refused
from ._files import FileSet
from ._guards import GuardContext, check
from ._iommu import ISOLATED, NONE, UNSAFE, group_refusals, read_group
from ._kernel import Kernel
from ._pci import PciBus, PciDevice
from ._plan import UNBIND, DeviceState, Step, Target, observe, plan
from ._select import resolve
from ._store import BINDINGS, Originals, load_json

_TAINT_BITS = ((6, "userspace drove a device without isolation"), (12, "out-of-tree"), (13, "unsigned module"))


class Request(NamedTuple):
    """What the operator declared. No devices: give everything back."""

    devices: list[dict[str, Any]]
    driver: str = "vfio-pci"
    backend: str = "auto"
    accept_unsafe: bool = False
    persistent: bool = True
    dpdk_pa_hint: bool = True
    insecure_until: str | None = None


class Move(NamedTuple):
    """What one device needs."""

    device: PciDevice
    now: DeviceState
    want: Target
    steps: list[Step]
    record: dict[str, Any] | None  # the original to go back to, for a device that is given back


class Binding:
    """One call. The constructor decides everything and touches nothing; :meth:`apply` does it."""

    def __init__(self, kernel: Kernel, context: GuardContext, request: Request, check_mode: bool = False) -> None:
        """Raise :class:`Refused` with every reason against the request."""
        self.kernel, self.root, self.request = kernel, kernel.root, request
        self.bus = PciBus(self.root)
        self._recorded = Originals.load(self.root)
        self._originals = self._recorded.copy()
        self.messages: list[str] = []
        self.needs = Needs([], {}, [])

        self.devices = self._select(context)
        self.moves = self._plan_returns() + self._plan_takes()
        refusals = self._expired() + self._in_use() + self._backend_missing(check_mode)
        if refusals:
            raise Refused(refusals)
        bindings = self._bindings() if self.devices and request.persistent else None
        self.files = FileSet(self.root, _persist.rendered(bindings, self.needs.modprobe_options))
        self._enabled = bindings is not None

    # --- deciding ---

    def _select(self, context: GuardContext) -> list[PciDevice]:
        request = self.request
        devices, refusals = resolve(request.devices, self.bus, self._recorded.identities())
        self.backend = None
        if request.devices:
            choice = choose(self.root, request.backend, request.accept_unsafe)
            self.backend = choice.backend
            refusals += choice.refusals
            self.messages += choice.warnings
        for device in devices:
            refusals += [guard.refusal() for guard in check(context, self.bus, device)]
        if self.backend == IOMMU:
            refusals += group_refusals(self.root, self.bus, devices, {device.address for device in devices})
        if refusals:
            raise Refused(refusals)
        return devices

    def _plan_takes(self) -> list[Move]:
        if self.backend is None:
            return []
        self.needs = needs(self.backend, self.request.driver, self.request.dpdk_pa_hint)
        want = target(self.backend, self.request.driver, self.request.dpdk_pa_hint)
        moves = []
        for device in self.devices:
            now = observe(self.root, device)
            moves.append(Move(device, now, want, plan(now, want), None))
            self._originals.record(device)
        return moves

    def _plan_returns(self) -> list[Move]:
        selected = {device.address for device in self.devices}
        moves = []
        for address, record in sorted(self._recorded.devices.items()):
            device = self.bus.get(address)
            if address in selected and device.vendor_device == record["vendor_device"]:
                continue
            if device is None or device.vendor_device != record["vendor_device"]:
                del self._originals.devices[address]
                self.messages.append("%s is gone from this host; its record is dropped." % address)
                continue
            now, want = observe(self.root, device), release_target(record)
            if now.driver not in (None, record["driver"], self.request.driver, now.driver_override):
                # Somebody gave it to a third driver meanwhile: only what is ours is taken back.
                self.messages.append("%s is bound to %s by somebody else and stays there." % (address, now.driver))
                want = want._replace(driver=now.driver, in_module=now.in_module)
            moves.append(Move(device, now, want, plan(now, want), record))
        return moves

    def _expired(self) -> list[HostError]:
        """Refuse to take a device insecurely after the acceptance ended; those that are taken stay."""
        until, now = self.request.insecure_until, _insecure.utc_now()
        over = self.backend in _insecure.INSECURE and _insecure.expired(until, now)
        taking = any(move.record is None and move.steps for move in self.moves)
        return [_insecure.refusal(until, now)] if over and taking else []

    def _in_use(self) -> list[HostError]:
        leaving = {}
        for move in self.moves:
            if move.now.group is not None and any(step.action == UNBIND for step in move.steps):
                leaving[read_group(self.root, move.now.group).chardev] = move
        return [
            HostError(
                "in_use",
                "%s has to be unbound from %s, but it is in use."
                % (leaving[chardev].device.address, leaving[chardev].now.driver),
                evidence=users,
                remedy="Stop that process first: unbinding under it would hang until it ends.",
            )
            for chardev, users in self.kernel.users(leaving).items()
        ]

    def _backend_missing(self, check_mode: bool) -> list[HostError]:
        if self.backend != DKMS or module_loaded(self.root, "noiommu") or module_installed(self.root, "noiommu"):
            return []
        missing = HostError(
            "backend_unavailable",
            "The kernel module noiommu is not installed for the running kernel.",
            evidence=["modules.dep of the running kernel: no noiommu.ko"],
            remedy="Run the role baremetal.noiommu.kmod (or the module dkms_module) first.",
        )
        if not check_mode:
            return [missing]
        # In a dry run of a whole play the role that builds it has not built it.
        self.messages.append("%s This is a dry run: an earlier task may build it." % missing.message)
        return []

    def _bindings(self) -> dict[str, Any]:
        return {
            "backend": self.backend,
            "driver": self.request.driver,
            "dpdk_pa_hint": self.request.dpdk_pa_hint,
            "devices": [
                {
                    "address": device.address,
                    "vendor_device": device.vendor_device,
                    "macs": self._macs(device.address),
                }
                for device in self.devices
            ],
            **_insecure.for_record(
                load_json(self.root, BINDINGS), self.backend, self.request.insecure_until, _insecure.utc_now()
            ),
        }

    def _macs(self, address: str) -> list[str]:
        return [one["mac"] for one in self._originals.devices[address]["interfaces"] if one["mac"]]

    @property
    def steps(self) -> list[str]:
        """Everything that will be done, in words and in order."""
        root, recorded = self.root, self._recorded
        parameters = self.needs.parameters.items()
        steps = ["load module %s" % name for name in self.needs.modules if not module_loaded(root, name)]
        steps += ["set %s to %s" % (path, value) for path, value in parameters if root.read_text(path) != value]
        steps += ["%s: %s" % (move.device.address, step) for move in self.moves for step in move.steps]
        if _persist.is_enabled(root) != self._enabled:
            steps.append("%s %s" % ("enable" if self._enabled else "disable", _persist.UNIT_NAME))
        needed = with_dependencies(root, self.needs.modules)
        left = [path for path in recorded.parameters if path not in self.needs.parameters]
        steps += ["set %s back to %s" % (path, recorded.parameters[path]) for path in left]
        steps += ["unload module %s" % name for name in reversed(recorded.modules) if name not in needed]
        return steps

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        returns = any(move.record is not None for move in self.moves)
        records = self._originals.render() != self._recorded.render()
        return bool(self.steps) or returns or records or self.files.changed

    # --- doing ---

    def apply(self) -> None:
        """Do it all, or put everything back and raise."""
        transaction = Transaction(self.kernel)
        try:
            self._apply(transaction)
        except BaseException as exc:
            problems = transaction.rollback()
            if isinstance(exc, HostError):
                exc.evidence += problems or ["everything done before was put back"]
            raise

    def _apply(self, transaction: Transaction) -> None:
        root, originals = self.root, self._originals
        # Written before the first touch: whatever happens now, a later run knows the way back.
        transaction.save(originals)
        transaction.prepare(self.needs, originals)
        for move in self.moves:
            transaction.move(move.device, move.want)
            if move.record is None:
                self.kernel.wait_for_group(move.device)
        returned = {
            move.device.address: move.record["interfaces"]
            for move in self.moves
            if move.record is not None and move.want.driver == move.record["driver"]
        }
        missing = self.kernel.restore_links(returned) if any(returned.values()) else []
        if missing:
            self.messages.append("These interfaces did not come back as they were: %s." % ", ".join(missing))
        if self.files.changed or _persist.is_enabled(root) != self._enabled:
            was_enabled = _persist.is_enabled(root)
            transaction.on_rollback("the boot unit", lambda: _persist.enable(self.kernel, was_enabled))
            transaction.on_rollback("files", self.files.rollback)
            self.files.apply()
            _persist.enable(self.kernel, self._enabled)
        self._finish(transaction)

    def _finish(self, transaction: Transaction) -> None:
        """Forget what was given back, and tidy the host: nothing in here can fail a device any more."""
        originals = self._originals
        for move in self.moves:
            if move.record is not None:
                del originals.devices[move.device.address]
        self.messages += transaction.restore_host(originals, self.needs)
        transaction.save(originals)
        if not self.devices:
            _persist.tidy(self.root)
            self.messages += _taint_message(self.root)

    # --- telling ---

    def before(self) -> dict[str, Any]:
        """Return the state that was found."""
        return {"devices": [move.now.report() for move in self._sorted()]}

    def after(self, predicted: bool = False) -> dict[str, Any]:
        """Return the state reached, or in check mode the one that would be."""
        moves = self._sorted()
        if predicted:
            return {"devices": [_predict(move, self.backend).report() for move in moves]}
        return {"devices": [observe(self.root, move.device).report() for move in moves]}

    def _sorted(self) -> list[Move]:
        return sorted(self.moves, key=lambda move: move.device.address)

    def resolved(self, after: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the declared devices with their identity and their state."""
        states = {state["address"]: state for state in after["devices"]}
        found = []
        for device in self.devices:
            state = states[device.address]
            chardev = read_group(self.root, state["iommu_group"]).chardev if state["iommu_group"] is not None else None
            record = self._originals.devices[device.address]
            found.append(
                dict(
                    state,
                    vendor_device=device.vendor_device,
                    backend=self.backend,
                    chardev=chardev,
                    original_driver=record["driver"],
                    interfaces=[one["name"] for one in record["interfaces"]],
                    macs=self._macs(device.address),
                )
            )
        return found

    def diff(self, before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, str]]:
        """Return what --diff shows: devices first, then files."""
        texts = _as_text(before), _as_text(after)
        devices = [{"before_header": "devices", "after_header": "devices", "before": texts[0], "after": texts[1]}]
        return (devices if texts[0] != texts[1] else []) + self.files.diff()


def _predict(move: Move, backend: str | None) -> DeviceState:
    now, want = move.now, move.want
    if not move.steps:
        return now
    keeps_group = backend == IOMMU if move.record is None else not now.in_module
    if move.record is None:
        safety = ISOLATED if backend == IOMMU else UNSAFE
    else:
        safety = now.safety if keeps_group else NONE
    return now._replace(
        driver=want.driver,
        driver_override=want.driver_override,
        # The kernel numbers a new group when it makes it.
        group=now.group if keeps_group else None,
        in_module=want.in_module,
        safety=safety,
    )


def _as_text(state: dict[str, Any]) -> str:
    lines = []
    for device in state["devices"]:
        lines.append("%s:" % device["address"])
        shown = ((key, "none" if value is None else value) for key, value in device.items() if key != "address")
        lines += ["  %s: %s" % pair for pair in shown]
    return "\n".join(lines) + "\n" if lines else ""


def _taint_message(root) -> list[str]:
    mask = root.read_int("/proc/sys/kernel/tainted") or 0
    bits = ["%d (%s)" % (bit, text) for bit, text in _TAINT_BITS if mask >> bit & 1]
    if not bits:
        return []
    return ["The kernel stays tainted until it is rebooted: mask %d, bits %s." % (mask, ", ".join(bits))]
