# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The declared list of devices as one transaction: select, guard, plan, apply, remember, or put everything back."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._base import times
from .._base.errors import HostError, Refused
from .._base.files import FileSet
from .._base.fs import Root
from .._base.paths import BINDINGS, LIBRARY, STATE
from .._base.records import load_json
from .._devices import links
from .._devices.control import Kernel, nodes_of
from .._devices.originals import Originals, identity, interface_state, permanent_macs
from .._devices.selectors import resolve
from .._devices.sriov import AUTOPROBE, count, losses, plan_functions
from .._devices.steps import UNBIND, DeviceState, Step, Target, observe, plan, target
from .._devices.transaction import Transaction, release_target
from .._host.iommu import ISOLATED, NONE, UNSAFE, chardev_of, group_refusals
from .._host.modules import module_installed, module_loaded
from .._host.mounts import refuse_late
from .._host.pci import PciBus, PciDevice
from .._policy import acceptance
from .._policy.backend import DKMS, IOMMU, Needs, choose, needs, superfluous
from .._policy.guard_context import GuardContext
from .._policy.guards import carried, check, disturbed, loss_refusals
from .._policy.undeclared import undeclared
from . import boot_files

_TAINT_BITS = ((6, "userspace drove a device without isolation"), (12, "out-of-tree"), (13, "unsigned module"))


class Request(NamedTuple):
    """What the operator declared. Empty lists give everything back; None says nothing, and must not."""

    devices: list[dict[str, Any]] | None
    driver: str = "vfio-pci"
    backend: str = "auto"
    accept_unsafe: bool = False
    persistent: bool = True
    dpdk_pa_hint: bool = True
    sriov: list[dict[str, Any]] | None = []
    insecure_until: str | None = None


class Move(NamedTuple):
    """What one device needs."""

    device: PciDevice
    now: DeviceState
    want: Target
    steps: list[Step]
    record: dict[str, Any] | None  # the original to go back to, for a device that is given back
    lost: bool = False  # a virtual function that goes away after it is given back


class Binding:
    """One call. The constructor decides everything and touches nothing; :meth:`apply` does it."""

    def __init__(self, kernel: Kernel, context: GuardContext, request: Request, check_mode: bool = False) -> None:
        """Raise :class:`Refused` with every reason against the request."""
        self.kernel, self.root = kernel, kernel.root
        self.request = request = _explicit(self.root, request)
        self._context, self._check_mode = context, check_mode
        self.present = PciBus(self.root)
        self.bus = PciBus(self.root)  # as it will be: with the virtual functions that are still to be made
        self._recorded = Originals.load(self.root)
        self._originals = self._recorded.copy()
        self.messages: list[str] = []
        self.needs = Needs([], {}, [])

        self.vf_plans, refusals = plan_functions(
            self.root, self.bus, request.sriov, self._recorded.identities(), self._recorded.sriov
        )
        self._lost = losses(self.vf_plans, self.present)
        self.devices = self._select(refusals, check_mode)
        self.moves = self._plan_returns() + self._plan_takes()
        refusals = self._expired() + self._in_use() + self._backend_missing()
        if self._declared and request.persistent:
            refusals += refuse_late(self.root, (LIBRARY, STATE))
        if refusals:
            raise Refused(refusals)
        self._note_functions()
        bindings = self._bindings() if self._declared and request.persistent else None
        self.files = FileSet(self.root, boot_files.rendered(self.root, bindings, self.needs.modprobe_options))
        self._enabled = bindings is not None

    @property
    def _declared(self) -> bool:
        return bool(self.devices or self.request.sriov)

    # --- deciding ---

    def _select(self, refusals: list[HostError], check_mode: bool) -> list[PciDevice]:
        request = self.request
        devices, errors = resolve(request.devices, self.bus, self._recorded.identities())
        refusals += errors
        self.backend = None
        if request.devices:
            # In a dry run of a whole play the reboot that turns the IOMMU on has not happened.
            dry_iommu = check_mode and request.backend == IOMMU
            choice = choose(self.root, request.backend, request.accept_unsafe, dry_iommu)
            self.backend = choice.backend
            refusals += choice.refusals
            self.messages += choice.warnings
        refusals += loss_refusals(self._context, self.present, self._lost, set(self._recorded.devices))
        there = [device for device in devices if not device.planned]
        for device in there:
            guards = check(self._context, self.present, device)
            refusals += [guard.refusal() for guard in self._recorded.standing(guards, device, self.present)]
        if self.backend == IOMMU:
            refusals += group_refusals(self.root, self.present, there, {device.address for device in devices})
        if refusals:
            raise Refused(refusals)
        if len(there) < len(devices):
            self.messages.append(
                "%d virtual functions do not exist yet: their MAC addresses, and the groups and guards of all that is "
                "to be made, are known when they do." % (len(devices) - len(there))
            )
        return devices

    def _note_functions(self) -> None:
        """Record what is about to change, and forget physical functions that are gone."""
        for one in self.vf_plans:
            if one.changes and one.record is None:
                state = {"vfs": one.now, "autoprobe": self.root.read_text(one.pf.path, AUTOPROBE)}
                self._originals.record_sriov(one.pf, self.bus, state)
        known = {one.pf.address for one in self.vf_plans}
        for address in [address for address in self._originals.sriov if address not in known]:
            del self._originals.sriov[address]
            self.messages.append("%s is gone from this host; the record of its virtual functions is dropped." % address)

    @property
    def _autoprobe(self) -> dict[str, str]:
        """What a run that was killed left of the switch that keeps drivers off new virtual functions."""
        wanted = {
            one.pf.path + "/" + AUTOPROBE: self._recorded.sriov.get(one.pf.address, {}).get("autoprobe")
            for one in self.vf_plans
        }
        return {path: value for path, value in wanted.items() if value and self.root.read_text(path) != value}

    def _plan_takes(self) -> list[Move]:
        if self.backend is None:
            return []
        self.needs = needs(self.backend, self.request.driver, self.request.dpdk_pa_hint)
        want = target(self.backend, self.request.driver, self.request.dpdk_pa_hint)
        moves = []
        for device in self.devices:
            now = observe(self.root, device)
            moves.append(Move(device, now, want, plan(now, want), None))
            self._originals.record(device, self.bus)
        return moves

    def _plan_returns(self) -> list[Move]:
        selected = {device.address for device in self.devices}
        lost = {device.address for _pf, device in self._lost}
        moves = []
        for address, record in sorted(self._recorded.devices.items()):
            if address in selected and self.bus.devices[address].vendor_device == record["vendor_device"]:
                continue
            device = self.present.get(address)
            if device is None or device.vendor_device != record["vendor_device"]:
                del self._originals.devices[address]
                self.messages.append("%s is gone from this host; its record is dropped." % address)
                continue
            now, want = observe(self.root, device), release_target(record)
            if address in lost:
                want = Target(None, None, False)
            elif now.driver not in (None, record["driver"], self.request.driver, now.driver_override):
                # Somebody gave it to a third driver meanwhile: only what is ours is taken back.
                self.messages.append("%s is bound to %s by somebody else and stays there." % (address, now.driver))
                want = want._replace(driver=now.driver, in_module=now.in_module)
            moves.append(Move(device, now, want, plan(now, want), record, address in lost))
        return moves

    def _expired(self) -> list[HostError]:
        """Refuse to take a device insecurely after the acceptance ended; those that are taken stay."""
        until, now = self.request.insecure_until, times.utc_now()
        over = self.backend in acceptance.INSECURE and acceptance.expired(until, now)
        taking = any(move.record is None and move.steps for move in self.moves)
        return [acceptance.refusal(until, now)] if over and taking else []

    def _in_use(self) -> list[HostError]:
        devices = [move.device for move in self.moves if any(step.action == UNBIND for step in move.steps)]
        devices += [device for _pf, device in self._lost]
        leaving = {node: device for device in devices for node in nodes_of(self.root, device)}
        return [
            HostError(
                "in_use",
                "%s has to be unbound from %s, but it is in use." % (leaving[node].address, leaving[node].driver),
                evidence=users,
                remedy="Stop that process first: unbinding would hang until it ends, or take the device away under it.",
            )
            for node, users in self.kernel.users(leaving).items()
        ]

    def _backend_missing(self) -> list[HostError]:
        if self.backend != DKMS or module_loaded(self.root, "noiommu") or module_installed(self.root, "noiommu"):
            return []
        missing = HostError(
            "backend_unavailable",
            "The kernel module noiommu is not installed for the running kernel.",
            evidence=["modules.dep of the running kernel: no noiommu.ko"],
            remedy="Run the role baremetal.noiommu.kmod (or the module dkms_module) first.",
        )
        if not self._check_mode:
            return [missing]
        # In a dry run of a whole play the role that builds it has not built it.
        self.messages.append("%s This is a dry run: an earlier task may build it." % missing.message)
        return []

    def _bindings(self) -> dict[str, Any]:
        bindings: dict[str, Any] = {
            "backend": self.backend,
            "driver": self.request.driver,
            "dpdk_pa_hint": self.request.dpdk_pa_hint,
            "devices": [self._entry(device) for device in self.devices],
            **acceptance.for_record(
                load_json(self.root, BINDINGS), self.backend, self.request.insecure_until, times.utc_now()
            ),
        }
        declared = [one for one in self.vf_plans if one.record is None]
        if declared:
            bindings["sriov"] = [
                dict(
                    identity(one.pf, self.bus),
                    address=one.pf.address,
                    vfs=one.want,
                    macs=permanent_macs(interface_state(one.pf)),
                )
                for one in sorted(declared, key=lambda one: one.pf.address)
            ]
        return bindings

    def _entry(self, device: PciDevice) -> dict[str, Any]:
        record = self._originals.devices[device.address]
        known = {key: record[key] for key in ("vendor_device", "serials", "slot", "vf") if key in record}
        return dict(known, address=device.address, macs=self._macs(device.address))

    def _macs(self, address: str) -> list[str]:
        return permanent_macs(self._originals.devices[address]["interfaces"])

    @property
    def steps(self) -> list[str]:
        """Everything that will be done, in words and in order."""
        root, recorded = self.root, self._recorded
        parameters = self.needs.parameters.items()
        steps = ["load module %s" % name for name in self.needs.modules if not module_loaded(root, name)]
        steps += ["set %s to %s" % (path, value) for path, value in parameters if root.read_text(path) != value]
        returns, takes = self._sides()
        steps += _in_words(returns)
        steps += [str(one) for one in self.vf_plans if one.changes]
        steps += ["set %s back to %s" % pair for pair in self._autoprobe.items()]
        steps += _in_words(takes)
        names = links.changes(root, self._originals).items()
        steps += ["%s the name %s/%s" % ("set" if target else "remove", links.BASE, name) for name, target in names]
        if boot_files.is_enabled(root) != self._enabled:
            steps.append("%s %s" % ("enable" if self._enabled else "disable", boot_files.UNIT_NAME))
        left = [path for path in recorded.parameters if path not in self.needs.parameters]
        steps += ["set %s back to %s" % (path, recorded.parameters[path]) for path in left]
        steps += ["unload module %s" % name for name in superfluous(root, recorded.modules, self.needs.modules)]
        empty = boot_files.empty_directories(root, self._declared)
        steps += ["remove the empty directory %s" % path for path in empty]
        return steps

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        returns = any(move.record is not None for move in self.moves)
        records = self._originals != self._recorded
        return bool(self.steps) or returns or records or self.files.changed

    # --- doing ---

    def _sides(self) -> tuple[list[Move], list[Move]]:
        """Return the devices that are given back and those that are taken."""
        return [one for one in self.moves if one.record is not None], [one for one in self.moves if one.record is None]

    def apply(self) -> None:
        """Do it all, or put everything back and raise."""
        with Transaction(self.kernel) as transaction:
            self._apply(transaction)

    def _apply(self, transaction: Transaction) -> None:
        root = self.root
        originals = self._originals = self._known()
        returns, takes = self._sides()
        # Noted first, done last: groups are numbered anew when devices are put back.
        transaction.on_rollback("the names in " + links.BASE, lambda: links.update(root, self._recorded))
        # Written before the first touch: whatever happens now, a later run knows the way back.
        transaction.save(originals)
        transaction.prepare(self.needs, originals)
        transaction.move_all([(move.device, move.want) for move in returns])
        if self._change_functions(transaction):
            self._continue(transaction)
            return
        transaction.move_all([(move.device, move.want) for move in takes])
        for move in takes:
            self.kernel.wait_for_group(move.device)
        returned = {
            move.device.address: move.record["interfaces"]
            for move in returns
            if move.want.driver == move.record["driver"] and not move.lost
        }
        missing = self.kernel.restore_links(returned) if any(returned.values()) else []
        if missing:
            self.messages.append("These interfaces did not come back as they were: %s." % ", ".join(missing))
        if self.files.changed or boot_files.is_enabled(root) != self._enabled:
            was_enabled, unit_changed = boot_files.is_enabled(root), boot_files.UNIT in self.files.changed_paths
            transaction.on_rollback("the boot unit", lambda: boot_files.enable(self.kernel, was_enabled, unit_changed))
            transaction.on_rollback("files", self.files.rollback)
            self.files.apply()
            boot_files.enable(self.kernel, self._enabled, unit_changed)
        self._finish(transaction)

    def _known(self) -> Originals:
        """What is recorded of devices that exist: of the others there is nothing to put back but their number."""
        known = self._originals.copy()
        for device in self.devices:
            if device.planned and device.address not in self._recorded.devices:
                del known.devices[device.address]
        return known

    def _change_functions(self, transaction: Transaction) -> bool:
        """Make and remove virtual functions; return whether there are new ones."""
        changing = [one for one in self.vf_plans if one.changes]
        for one in changing:
            before = carried(self._context, self.present, one.pf)
            taken = {device.address for device in self.devices if device.physfn == one.pf.address}
            transaction.set_functions(one, taken)
            lost = disturbed(self._context, one.pf, before)
            if lost:
                raise HostError(
                    "sriov",
                    "%s lost what the host needs of it when its virtual functions were made." % one.pf.address,
                    evidence=["gone: " + line for line in lost],
                    remedy="Its driver (%s) restarts the interface: use a device that the host does not need."
                    % one.pf.driver,
                )
        for path, value in self._autoprobe.items():
            self.root.write_sysfs(path, value + "\n")
        return any(one.want for one in changing)

    def _continue(self, transaction: Transaction) -> None:
        """Go on with the virtual functions that exist by now, guards and all, within the same transaction."""
        for move in self.moves:
            if move.lost:
                del self._originals.devices[move.device.address]
        transaction.save(self._originals)
        rest = Binding(self.kernel, self._context.fresh(), self.request)
        rest._apply(transaction)
        rest.messages = self.messages + [one for one in rest.messages if one not in self.messages]
        changed = ("devices", "moves", "messages", "_originals", "present")
        vars(self).update({name: vars(rest)[name] for name in changed})

    def _finish(self, transaction: Transaction) -> None:
        """Forget what was given back, and tidy the host: nothing in here can fail a device any more."""
        originals = self._originals
        for move in self.moves:
            if move.record is not None:
                del originals.devices[move.device.address]
        for one in self.vf_plans:
            if one.record is not None:
                del originals.sriov[one.pf.address]
        links.update(self.root, originals)
        self.messages += transaction.restore_host(originals, self.needs)
        boot_files.remove_leftovers(self.root, self._declared)
        if not self._declared:
            self.messages += _taint_message(self.root)
        transaction.save(originals)

    # --- telling ---

    def before(self) -> dict[str, Any]:
        """Return the state that was found."""
        return {
            "devices": [move.now.report() for move in self._sorted()],
            "sriov": [{"pf": one.pf.address, "vfs": one.now} for one in self.vf_plans],
        }

    def after(self, predicted: bool = False) -> dict[str, Any]:
        """Return the state reached, or in check mode the one that would be."""
        moves = self._sorted()
        if predicted:
            states = [_predict(move, self.backend) for move in moves]
            numbers = {one.pf.address: one.want for one in self.vf_plans}
        else:
            states = [observe(self.root, move.device) for move in moves]
            numbers = {one.pf.address: count(self.root, one.pf) for one in self.vf_plans}
        return {
            "devices": [state.report() for state in states],
            "sriov": [{"pf": address, "vfs": number} for address, number in numbers.items()],
        }

    def _sorted(self) -> list[Move]:
        return sorted(self.moves, key=lambda move: move.device.address)

    def resolved(self, after: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the declared devices with their identity and their state."""
        states = {state["address"]: state for state in after["devices"]}
        found = []
        for device in self.devices:
            state = states[device.address]
            record = self._originals.devices[device.address]
            found.append(
                dict(
                    state,
                    vendor_device=device.vendor_device,
                    backend=self.backend,
                    chardev=chardev_of(self.root, state["iommu_group"]),
                    names=["%s/%s" % (links.BASE, name) for name in links.names(device.address, record)],
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


def _explicit(root: Root, request: Request) -> Request:
    """Return what is declared; refuse to take a missing word for an order to give back what is recorded."""
    refusals = undeclared(root, [name for name in ("devices", "sriov") if getattr(request, name) is None])
    if refusals:
        raise Refused(refusals)
    return request._replace(devices=request.devices or [], sriov=request.sriov or [])


def _predict(move: Move, backend: str | None) -> DeviceState:
    now, want = move.now, move.want
    if move.lost:
        return DeviceState(now.address, None, None, None, None, False, False, NONE)
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


def _in_words(moves: list[Move]) -> list[str]:
    return ["%s: %s" % (move.device.address, step) for move in moves for step in move.steps]


def _as_text(state: dict[str, Any]) -> str:
    lines = []
    for device in state["devices"]:
        lines.append("%s:" % device["address"])
        shown = ((key, "none" if value is None else value) for key, value in device.items() if key != "address")
        lines += ["  %s: %s" % pair for pair in shown]
    lines += ["%s: %d virtual functions" % (one["pf"], one["vfs"]) for one in state["sriov"]]
    return "\n".join(lines) + "\n" if lines else ""


def _taint_message(root) -> list[str]:
    mask = root.read_int("/proc/sys/kernel/tainted") or 0
    bits = ["%d (%s)" % (bit, text) for bit, text in _TAINT_BITS if mask >> bit & 1]
    if not bits:
        return []
    return ["The kernel stays tainted until it is rebooted: mask %d, bits %s." % (mask, ", ".join(bits))]
