// SPDX-License-Identifier: GPL-3.0-or-later
"use strict";
// Whatever comes from a host goes into text nodes and attributes that are text; never into markup.
(() => {
  const PAGE = 100;
  const get = (id) => document.getElementById(id);
  const make = (name, properties, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };

  let report;
  const day = (time) => (time ? time.slice(0, 10) : "");
  const readable = (time) => time.replace("T", " ").replace("Z", " UTC");

  // As the alert NoiommuCheckStale has it.
  const STALE = 2 * 86400;
  // Of what is shown now, not when the report was made: a page may be looked at long afterwards.
  const age = (host) => Math.max((Date.now() - Date.parse(host.checked_at)) / 1000, 0);
  const stale = (host) => age(host) > STALE;
  const ago = (seconds) => {
    const [unit, length] = [["min", 60], ["h", 3600], ["d", 86400]].findLast(([, one]) => seconds >= one) || ["min", 60];
    return `${Math.floor(seconds / length)} ${unit} ago`;
  };
  const total = (pools) => pools.map(
    (pool) => `${pool.size}${pool.node === null ? "" : ` node ${pool.node}`}: ${pool.count}`);

  const STATES = {
    failed: ["Failed", "bad"], unreachable: ["Unreachable", "bad"], refused: ["Refused", "bad"],
    expired: ["Expired", "bad"], drifted: ["Drifted", "warn"], unknown: ["Unknown", "warn"],
    maintenance: ["Maintenance", "quiet"], ok: ["As declared", "good"],
  };
  const severity = Object.keys(STATES);

  function insecure(host) {
    const one = host.insecure;
    if (one.active === null) return ["", ""];
    if (!one.active) return ["no", "good"];
    const parts = [one.since ? `since ${day(one.since)}` : "since unknown"];
    if (one.until) parts.push(`until ${one.until}${one.expired ? " (over)" : ""}`);
    return [parts.join("\n"), one.expired ? "bad" : "warn"];
  }

  function pending(host) {
    const reboot = host.reboot_pending.length ? ["reboot"] : [];
    return [...reboot, ...host.keys_to_enrol.length ? ["enrol key"] : []].join(", ");
  }

  // title, what is shown with its class, what is sorted by
  const COLUMNS = [
    ["Host", (host) => [host.name, ""], (host) => host.place],
    ["State", (host) => STATES[host.state] || [host.state, "warn"], (host) => severity.indexOf(host.state)],
    ["Insecure", insecure, (host) => (host.insecure.active ? host.insecure.since || "0" : "9")],
    ["Backend", (host) => [host.backend || "", ""], (host) => host.backend || ""],
    ["Taint", (host) => (host.taint ? [String(host.taint.mask), host.taint.mask ? "" : "quiet"] : ["", ""]),
      (host) => (host.taint ? -host.taint.mask : 1)],
    ["Devices", (host) => [host.devices.length ? String(host.devices.length) : "", ""], (host) => -host.devices.length],
    ["Hugepages", (host) => [total(host.hugepages.filter((one) => one.node === null && one.count)).join(", "), ""],
      (host) => -host.hugepages.reduce((sum, one) => sum + (one.node === null ? one.count : 0), 0)],
    ["Kernel", (host) => [host.kernel || "", ""], (host) => host.kernel || ""],
    ["Pending", (host) => [pending(host), "warn"], (host) => -pending(host).length],
    ["Checked", (host) => [ago(age(host)), stale(host) ? "warn" : "quiet"], (host) => host.checked_at],
    ["Why", (host) => [host.reason, "reason"], (host) => host.reason || "\uffff"],
  ];

  const TILES = [
    ["hosts", "hosts", () => true, ""],
    ["insecure", "insecure", (host) => host.insecure.active === true, "warn"],
    ["expired", "expired", (host) => host.state === "expired" || host.insecure.expired, "bad"],
    ["drifted", "drifted", (host) => host.drift.length > 0, "warn"],
    ["refused", "refused", (host) => host.state === "refused", "bad"],
    ["failed", "failed", (host) => host.state === "failed", "bad"],
    ["unreachable", "unreachable", (host) => host.state === "unreachable", "bad"],
    ["maintenance", "in maintenance", (host) => host.state === "maintenance", "quiet"],
    ["tainted", "tainted", (host) => host.taint && host.taint.mask > 0, ""],
    ["reboot", "to reboot", (host) => host.reboot_pending.length > 0, "warn"],
    ["keys", "keys to enrol", (host) => host.keys_to_enrol.length > 0, "warn"],
    ["stale", "stale", stale, "warn"],
  ];

  const view = { tile: TILES[0], column: 1, down: false, page: 0, find: [], backend: "", kernel: "" };
  let matching = [];

  const words = (value) => (value !== null && typeof value === "object"
    ? Object.values(value).map(words).join(" ") : String(value ?? ""));

  function haystack(host) {
    // Made when it is first asked for: five thousand of them would delay the first sight of the page.
    host.words ||= words(host).toLowerCase();
    return host.words;
  }

  function select() {
    const by = COLUMNS[view.column][2];
    const sign = view.down ? -1 : 1;
    matching = report.hosts.filter((host) => view.tile[2](host)
      && (!view.backend || host.backend === view.backend)
      && (!view.kernel || host.kernel === view.kernel)
      && view.find.every((word) => haystack(host).includes(word)))
      .map((host) => [by(host), host])
      .sort(([a, one], [b, other]) => sign * (a < b ? -1 : a > b ? 1 : 0) || one.place - other.place)
      .map(([, host]) => host);
    view.page = 0;
    draw();
  }

  function draw() {
    const first = view.page * PAGE;
    const rows = matching.slice(first, first + PAGE);
    get("rows").replaceChildren(...rows.map(row));
    get("shown").textContent = matching.length === 0 ? "No host matches."
      : `Hosts ${first + 1} to ${first + rows.length} of ${matching.length}`;
    get("pages").hidden = matching.length <= PAGE;
    const last = Math.max(Math.ceil(matching.length / PAGE) - 1, 0);
    get("page").textContent = `Page ${view.page + 1} of ${last + 1}`;
    get("previous").disabled = view.page === 0;
    get("next").disabled = view.page === last;
    get("columns").childNodes.forEach((head, number) => {
      if (number === view.column) head.setAttribute("aria-sort", view.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    get("order").value = String(view.column);
    get("summary").childNodes.forEach((tile, number) => {
      tile.setAttribute("aria-pressed", String(TILES[number] === view.tile));
    });
  }

  function row(host) {
    const cells = COLUMNS.map(([title, shown], number) => {
      const [text, kind] = shown(host);
      const cell = make("td", { className: kind === "reason" || !text ? "" : kind, role: "cell" });
      cell.dataset.label = title;
      if (number === 0) {
        const button = make("button", { type: "button", className: "open" }, text);
        button.setAttribute("aria-expanded", "false");
        button.addEventListener("click", () => toggle(button, host));
        cell.append(button);
      } else if (text) {
        cell.append(make("span", { className: kind === "reason" ? kind : "" }, text));
      }
      return cell;
    });
    return make("tr", { role: "row" }, ...cells);
  }

  function toggle(button, host) {
    const here = button.closest("tr");
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) here.nextElementSibling.remove();
    else here.after(details(host));
  }

  const list = (items) => make("ul", {}, ...items.map((item) => make("li", {}, ...[item].flat())));
  const section = (title, ...content) => make("section", {}, make("h2", {}, title), ...content);

  function grid(title, heads, lines) {
    const part = section(title, make("table", {},
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...lines.map(
        (line) => make("tr", {}, ...line.map((one) => make("td", {}, String(one ?? ""))))))));
    part.className = "wide";
    return part;
  }

  function details(host) {
    const parts = [];
    const add = (wanted, make_part) => { if (wanted && wanted.length) parts.push(make_part()); };
    add(host.reason && !host.refusals.length && !host.drift.length ? host.reason : "",
      () => section("Why", make("p", {}, host.reason)));
    add(host.refusals, () => section("Refusals", list(host.refusals.map((one) => [
      make("p", {}, make("b", {}, one.code), `: ${one.message}`),
      make("p", { className: "quiet" }, `seen: ${one.evidence.join("; ")}`),
      make("p", {}, `do: ${one.remedy}`)]))));
    add(host.drift, () => section("Drift from the inventory", list(host.drift.map((one) => [
      make("b", {}, one.concern), list(one.changes)]))));
    add(host.warnings, () => section("Warnings", list(host.warnings)));
    add(host.reboot_pending, () => section("Waits for a reboot", list(host.reboot_pending)));
    add(host.keys_to_enrol, () => section("Keys to enrol", list(host.keys_to_enrol)));
    if (host.insecure.active !== null) {
      const one = host.insecure;
      const from = { record: "written down when the devices were taken", log: "from the kernel log of this boot" };
      parts.push(section("Insecure passthrough", list([
        one.active ? "Devices are in groups that no IOMMU confines: they can reach all memory."
          : "No device is handed out without an IOMMU.",
        ...one.active ? [`Since: ${one.since ? `${one.since} (${from[one.since_from]})` : "unknown"}`] : [],
        one.until ? `Accepted until: ${one.until}, end of the day UTC${one.expired ? ": that is over" : ""}`
          : "Accepted until: no end declared",
        "A process was given such a device since boot: "
          + { true: "yes", false: "no", null: "unknown" }[one.used_since_boot],
      ])));
    }
    if (host.taint) {
      const flags = host.taint.flags;
      parts.push(section(`Kernel taint ${host.taint.mask}`, flags.length ? list(flags.map((flag) => [
        make("b", {}, `${flag.letter} ${flag.name}`), `: ${flag.meaning}`,
        list(flag.attribution.map((who) => `${who.kind} ${who.name}${who.pid === null ? "" : `[${who.pid}]`}`
          + `${who.since ? `, ${who.since}` : ""}${who.insecure_passthrough ? " (insecure passthrough)" : ""}`))]))
        : make("p", {}, "The kernel is not tainted.")));
    }
    add(host.devices, () => grid("Devices",
      ["Address", "Kind", "Driver", "Group", "Node in /dev", "NUMA", "Interface, MAC", "Protection",
        "Write-combined"],
      host.devices.map((one) => [one.address, `${one.vendor_device} ${one.class}`, one.driver, one.group, one.chardev,
        one.numa_node, [...one.interfaces, one.mac].filter(Boolean).join(" "), one.safety,
        one.write_combining.map((bar) => `BAR ${bar}`).join(", ")])));
    add(host.hugepages, () => grid("Hugepages", ["Size", "NUMA node", "Pages", "Free"],
      host.hugepages.map((one) => [one.size, one.node === null ? "all" : one.node, one.count, one.free])));
    add(host.os, () => section("System", make("p", {}, `${host.os}, kernel ${host.kernel || "unknown"}`)));
    parts.push(section("Checked", make("p", {}, `${readable(host.checked_at)}, ${ago(age(host))}`)));
    return make("tr", { className: "details", role: "row" },
      make("td", { colSpan: COLUMNS.length, role: "cell" }, make("div", {}, ...parts)));
  }

  function sort(column) {
    view.down = view.column === column ? !view.down : false;
    view.column = column;
    select();
  }

  function choices(id, of) {
    const values = [...new Set(report.hosts.map(of).filter(Boolean))].sort();
    get(id).append(...values.map((value) => make("option", { value }, value)));
    get(id).addEventListener("change", (event) => { view[id] = event.target.value; select(); });
  }

  function build() {
    report = JSON.parse(get("data").textContent);
    report.hosts.forEach((host, place) => { host.place = place; });
    const time = (value) => make("time", { dateTime: value }, readable(value));
    const checks = report.hosts.map((host) => host.checked_at).sort();
    get("made").replaceChildren("As of ", time(report.generated_at),
      ...checks.length && checks[0] !== checks.at(-1) ? [
        ". The hosts were checked between ", time(checks[0]), " and ", time(checks.at(-1)), "."] : []);
    get("summary").append(...TILES.map((tile) => {
      const number = report.hosts.filter(tile[2]).length;
      const button = make("button", { type: "button" },
        make("b", { className: number ? tile[3] : "quiet" }, String(number)), tile[1]);
      button.dataset.tile = tile[0];
      button.addEventListener("click", () => { view.tile = view.tile === tile ? TILES[0] : tile; select(); });
      return button;
    }));
    get("columns").append(...COLUMNS.map(([title], number) => {
      const button = make("button", { type: "button" }, title);
      button.addEventListener("click", () => sort(number));
      return make("th", { scope: "col", role: "columnheader" }, button);
    }));
    get("order").append(...COLUMNS.map(([title], number) => make("option", { value: String(number) }, title)));
    get("order").addEventListener("change", (event) => {
      view.column = Number(event.target.value); view.down = false; select();
    });
    choices("backend", (host) => host.backend);
    choices("kernel", (host) => host.kernel);
    let typing;
    get("find").addEventListener("input", (event) => {
      clearTimeout(typing);
      typing = setTimeout(() => {
        view.find = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
        select();
      }, 120);
    });
    get("filters").addEventListener("submit", (event) => event.preventDefault());
    get("filters").addEventListener("reset", () => {
      Object.assign(view, { tile: TILES[0], find: [], backend: "", kernel: "" });
      setTimeout(select);
    });
    const turn = (by) => { view.page += by; draw(); get("hosts").scrollIntoView(); };
    const button = (id, text, by) => {
      const one = make("button", { id, type: "button" }, text);
      one.addEventListener("click", () => turn(by));
      return one;
    };
    get("pages").append(button("previous", "Previous", -1), make("span", { id: "page" }), button("next", "Next", 1));
    select();
  }

  // Let the head of the page be painted before the work.
  requestAnimationFrame(() => setTimeout(build));
})();
