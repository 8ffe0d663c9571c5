// Copyright (c) 2026, baremetal.noiommu contributors
// SPDX-License-Identifier: GPL-3.0-or-later
// On a phone, tables of text are shown as a list (site.css): each cell says which column it is of.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("article table.docutils:not(.ansible-option-table)")) {
    if (table.querySelector(".text-right")) continue; // figures stay side by side, and scroll
    const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent.trim());
    for (const row of table.querySelectorAll("tbody tr"))
      [...row.cells].forEach((cell, column) => { cell.dataset.label = heads[column] || ""; });
    table.classList.add("as-list");
  }
});
