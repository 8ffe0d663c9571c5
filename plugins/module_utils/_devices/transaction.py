# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Move devices and prepare the host for it, so that all of it can be rolled back."""

from __future__ import annotations

import signal
import threading
from functools import partial
from types import FrameType
from typing import Any, Callable, Collection, NamedTuple

from .._base.errors import HostError
from .._base.paths import PA_HINT
from .._base.undo import UndoStack
from .._host.modules import dependencies, module_loaded
from .._host.pci import PciBus, PciDevice
from .._policy.backend import Needs, modules_to_unload
from .._policy.kinds import VFIO_PCI
from .control import Kernel
from .hanging import refuse_hanging
from .identity import interface_state
from .originals import Originals
from .sriov import AUTOPROBE, VfPlan
from .steps import (
    ADD,
    BIND,
    COMBINE,
    OVERRIDE,
    REMOVE,
    UNBIND,
    UNCOMBINE,
    DeviceState,
    Step,
    Target,
    observe,
    plan,
)
from .vf_control import set_back
from .vf_settings import remarkable
from .write_combining import combine, require_combined, uncombine

INTERRUPTED = "interrupted"
# The kernel waits more than it works when it unbinds a device: several at once wait together.
_AT_ONCE = 16
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked this process to end. Not an Exception: nothing on the way may take it for its own failure."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)


class Released(NamedTuple):
    """What came of the devices that were to be released, of those that did not simply go back."""

    messages: list[str]  # which went another way
    kept: dict[str, str]  # which could not be released, by address, and why


class Transaction:
    """Everything done through it is undone in reverse order by :meth:`rollback`.

    As a context, it rolls back at a failure, and at the first signal to end: no signal interrupts a rollback.
    """

    def __init__(self, kernel: Kernel, ask: Callable[[PciDevice], None] = lambda device: None) -> None:
        """``ask`` is called right before a device is unbound that is to be bound, and raises if it must not be."""
        self.kernel = kernel
        self._ask = ask
        self._undo = UndoStack()
        self._links: dict[str, list[dict[str, Any]]] = {}  # interfaces of devices that were rolled back
        self._handlers: dict[int, Any] = {}
        self._ignore_signals = False

    def __enter__(self) -> Transaction:
        self._handlers = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if not self._ignore_signals:
            self._ignore_signals = True
            raise Interrupted(number)

    def __exit__(self, _kind: Any, failure: BaseException | None, _trace: Any) -> None:
        try:
            if failure is None:
                return
            self._ignore_signals = True
            problems = self.rollback() or ["everything done before was put back"]
            if isinstance(failure, HostError):
                failure.evidence += problems
            if isinstance(failure, Interrupted):
                raise HostError(
                    INTERRUPTED,
                    "%s ended this run before it was done." % failure,
                    evidence=problems,
                    remedy="Run again when it may finish.",
                ) from failure
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def on_rollback(self, what: str, undo: Callable[[], Any]) -> None:
        """Note how to undo something that is about to be done."""
        self._undo.push(what, undo)

    def rollback(self) -> list[str]:
        """Undo everything; return what could not be undone."""
        problems = self._undo.unwind()
        # Once for all: an interface takes its time to appear and to get its name.
        missing = self.kernel.restore_links(self._links) if self._links else []
        self._links = {}
        return problems + ["NOT put back: the interface " + name for name in missing]

    # --- the host ---

    def save(self, originals: Originals) -> None:
        """Record what is about to be changed."""
        root = self.kernel.root
        before = Originals.load(root)
        if before != originals:
            # By it the next run knows what is left.
            self._undo.push("the record of originals", lambda: before.save(root), unless_failed=True)
            originals.save(root)

    def prepare(self, needs: Needs, originals: Originals) -> None:
        """Load the modules and set the parameters of a backend, each recorded before it is changed."""
        root = self.kernel.root
        for module in needs.modules:
            if module_loaded(root, module):
                continue
            # Recorded one by one, because modprobe -r leaves some of what came along.
            coming = [name for name in dependencies(root, module) if not module_loaded(root, name)] + [module]
            originals.modules += [name for name in coming if name not in originals.modules]
            self.save(originals)
            for name in coming:
                self.on_rollback("the module " + name, partial(self._unload, name))
            self.kernel.load(module)
        for path, value in needs.parameters.items():
            before = root.read_text(path)
            if before == value:
                continue
            if path != PA_HINT and path not in originals.parameters:
                originals.parameters[path] = before or ""
                self.save(originals)
            self.on_rollback(path, partial(root.write_sysfs, path, (before or "") + "\n"))
            root.write_sysfs(path, value + "\n")

    def restore_host(self, originals: Originals, needs: Needs) -> list[str]:
        """Undo recorded changes of modules and parameters that are no longer needed. Return what has to stay."""
        root, messages = self.kernel.root, []
        for path in [path for path in originals.parameters if path not in needs.parameters]:
            value, now = originals.parameters.pop(path), root.read_text(path)
            if value and now is not None and now != value:
                self.on_rollback(path, partial(root.write_sysfs, path, now + "\n"))
                root.write_sysfs(path, value + "\n")
        for module in modules_to_unload(root, originals.modules, needs.modules):
            originals.modules.remove(module)
            if not module_loaded(root, module):
                continue
            if self.kernel.unload(module):
                self.on_rollback("the module " + module, partial(self.kernel.load, module))
            else:
                messages.append("The module %s stays loaded: something else uses it." % module)
        return messages

    def _unload(self, module: str) -> bool:
        return not module_loaded(self.kernel.root, module) or self.kernel.unload(module)

    # --- devices ---

    def move_all(self, moves: list[tuple[PciDevice, Target]]) -> None:
        """Move devices to their targets, several at once."""
        self._in_parallel([partial(self.move, device, want) for device, want in moves])

    def move(self, device: PciDevice, want: Target) -> None:
        """Move a device to its target, and check that it got there."""
        before, links = observe(self.kernel.root, device), interface_state(device)
        steps = plan(before, want)
        if not steps:
            return
        if any(step.action == UNBIND for step in steps):
            self._ask(device)
        self.on_rollback(device.address, lambda: self._undo_move(device, as_target(before), links))
        self._run(device, steps)
        if want.driver == VFIO_PCI:
            require_combined(self.kernel, device, want.write_combining or ())
        left = plan(observe(self.kernel.root, device), want)
        if left:
            raise HostError(
                "verify",
                "%s is not in the wanted state after every step succeeded." % device.address,
                evidence=["still needed: " + str(step) for step in left],
                remedy="Find out what else changes this device (udev rules, driverctl, another tool) and stop it.",
            )

    def move_or_keep(self, moves: list[tuple[PciDevice, Target]]) -> str:
        """Move devices to their targets; if one fails, put all of them back and return why."""
        before = [
            (device, as_target(observe(self.kernel.root, device)), interface_state(device)) for device, _want in moves
        ]
        try:
            self.move_all(moves)
        except HostError as exc:
            problems = [problem for state in before for problem in self._keep(*state)]
            return " ".join([exc.message, *exc.evidence, *problems])
        return ""

    def release_all(self, releases: list[tuple[PciDevice, Target, dict[str, Any]]]) -> Released:
        """Give devices back to the drivers in their records, several at once. One that fails keeps no other."""
        released = Released([], {})
        self._in_parallel([partial(self._release, released, *release) for release in releases])
        released.messages.sort()
        return released

    def _in_parallel(self, jobs: list[Callable[[], None]]) -> None:
        if len(jobs) > 1:
            self.kernel.before_threads()
        in_parallel(jobs)

    def _release(self, released: Released, device: PciDevice, want: Target, record: dict[str, Any]) -> None:
        before, links = observe(self.kernel.root, device), interface_state(device)
        try:
            self.move(device, want)
        except HostError as exc:
            reason = " ".join([exc.message, *exc.evidence])
            now = observe(self.kernel.root, device)
            if want.driver is None or now.driver is not None or now.in_module:
                released.kept[device.address] = " ".join([reason, *self._keep(device, as_target(before), links)])
                return
            # It is free, but its driver does not take it: its package may be gone.
            released.messages.append(
                "%s did not go back to %s, but to %s: %s" % (device.address, want.driver, self._probe(device), reason)
            )
            return
        if record.get("probe") and device.driver is None:
            released.messages.append(
                "What %s was bound to before is not known: it went to %s." % (device.address, self._probe(device))
            )

    def _keep(self, device: PciDevice, before: Target, links: list[dict[str, Any]]) -> list[str]:
        """Put a device that cannot be released back to where it was; return why that failed, if it did."""
        try:
            self._undo_move(device, before, links)
        except HostError as exc:
            return ["NOT put back: %s" % exc.message]
        return []

    def _probe(self, device: PciDevice) -> str:
        try:
            self.kernel.override(device, None)
        except HostError as exc:
            return "none: " + exc.message
        self.kernel.probe(device)
        return (
            "the host's own driver %s" % device.driver if device.driver else "none, as no driver of the host wants it"
        )

    def set_functions(
        self, plan: VfPlan, declared: set[str], configure: Callable[[], Collection[str]] = lambda: ()
    ) -> None:
        """Set a physical function's number of virtual ones; offer those that are not ``declared`` to the host.

        ``configure`` is called before any driver sees them, and returns the addresses of those that no driver may have.
        """
        kernel, root = self.kernel, self.kernel.root
        bus = PciBus(root)
        functions = bus.functions(plan.pf).values()
        before = [(device, observe(root, device), interface_state(device)) for device in functions]
        self.on_rollback(str(plan), lambda: self._undo_functions(plan, before))
        # A driver that takes a virtual function for a moment makes an interface that others start to configure, and
        # learns its MAC address then.
        is_quiet = bool(declared or plan.wanted) and self._keep_drivers_off(plan.pf)
        for name in plan.down:
            self.on_rollback("the interface %s, which was down" % name, partial(kernel.link_down, name))
            kernel.link_up(name)
        kernel.set_functions(plan.pf, plan.want)
        unfit = configure()
        if is_quiet:
            root.write_sysfs("%s/%s" % (plan.pf.path, AUTOPROBE), "1\n")
        for address in plan.pf.functions.values():
            if address not in declared and address not in unfit:
                kernel.probe(PciDevice(root, address))

    def _keep_drivers_off(self, pf: PciDevice) -> bool:
        """Have no driver probe new virtual functions; return whether that is news."""
        root, path = self.kernel.root, "%s/%s" % (pf.path, AUTOPROBE)
        if root.read_text(path) != "1":
            return False
        self.on_rollback(path, lambda: root.write_sysfs(path, "1\n"))
        root.write_sysfs(path, "0\n")
        return True

    def set_down(self, plan: VfPlan) -> None:
        """Set down again what was down before the first virtual function was made."""
        was_down = (plan.record or {}).get("down", ())
        for name in [link.name for link in plan.pf.interfaces if link.up and link.name in was_down]:
            self.on_rollback("the interface %s, which was up" % name, partial(self.kernel.link_up, name))
            self.kernel.link_down(name)

    def _undo_functions(self, plan: VfPlan, before: list[tuple[PciDevice, DeviceState, list[dict[str, Any]]]]) -> None:
        root, autoprobe = self.kernel.root, "%s/%s" % (plan.pf.path, AUTOPROBE)
        settings = {index: remarkable(found) for index, found in plan.found.items()}
        is_quiet = any(settings.values()) and root.read_text(autoprobe) == "1"
        if is_quiet:
            root.write_sysfs(autoprobe, "0\n")
        self.kernel.set_functions(plan.pf, plan.now)
        try:
            if any(settings.values()):
                set_back(root, plan.pf, settings)
        finally:  # a setting that cannot be restored keeps no driver from its function
            if is_quiet:
                root.write_sysfs(autoprobe, "1\n")
            for device, state, interfaces in before:
                self._undo_move(device, as_target(state), interfaces)

    def _undo_move(self, device: PciDevice, want: Target, interfaces: list[dict[str, Any]]) -> None:
        refuse_hanging(self.kernel.root, device.address)
        # Planned from what is now: a step that failed may have been done in part.
        self._run(device, plan(observe(self.kernel.root, device), want))
        if interfaces:
            self._links[device.address] = interfaces

    def _run(self, device: PciDevice, steps: list[Step]) -> None:
        kernel = self.kernel
        requests = {
            OVERRIDE: lambda value: kernel.override(device, value),
            UNBIND: lambda value: kernel.unbind(device),
            REMOVE: lambda value: kernel.remove(device),
            ADD: lambda value: kernel.add(device, value),
            BIND: lambda value: kernel.bind(device, value),
            COMBINE: lambda value: combine(kernel, device, value),
            UNCOMBINE: lambda value: uncombine(kernel, device, value),
        }
        for step in steps:
            requests[step.action](step.value)


def in_parallel(jobs: list[Callable[[], None]]) -> None:
    """Run independent jobs. After a failure no other is begun; it is raised once the running ones have ended."""
    if min(_AT_ONCE, len(jobs)) < 2:
        for job in jobs:
            job()
        return
    left, lock = iter(jobs), threading.Lock()
    failures: list[BaseException] = []

    def work() -> None:
        while not failures:
            with lock:
                job = next(left, None)
            if job is None:
                return
            try:
                job()
            except BaseException as exc:  # pylint: disable=broad-exception-caught
                failures.append(exc)

    threads = [threading.Thread(target=work) for _number in range(min(_AT_ONCE, len(jobs)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except Interrupted as exc:
        failures.insert(0, exc)
        for thread in threads:
            if thread.is_alive():
                thread.join()
    if failures:
        raise failures[0]


def as_target(state: DeviceState) -> Target:
    """Return the target that leads back to a state."""
    hint = state.pa_hint if state.in_module else None
    return Target(state.driver, state.driver_override, state.in_module, hint, write_combining=tuple(state.bars.named))
