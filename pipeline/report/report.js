"use strict";
(() => {
  const rank = (cell) => {
    const text = cell.dataset.sort;
    return cell.classList.contains("number") ? (text === "" ? NaN : Number(text)) : text;
  };
  const compare = (left, right) => {
    if (typeof left === "number" && typeof right === "number") {
      if (Number.isNaN(left) || Number.isNaN(right)) return Number.isNaN(left) - Number.isNaN(right);
      return left - right;
    }
    return String(left).localeCompare(String(right), "en", { numeric: true });
  };
  const sortBy = (table, heading) => {
    const place = heading.cellIndex;
    const descending = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].sort((one, two) => {
      const order = compare(rank(one.cells[place]), rank(two.cells[place]));
      return descending ? -order : order;
    });
    body.append(...rows);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    if (table.tBodies[0].rows.length < 3) continue;
    for (const heading of table.tHead.rows[0].cells) {
      const title = heading.querySelector(".heading");
      const button = document.createElement("button");
      button.type = "button";
      button.append(...title.childNodes);
      title.append(button);
      button.addEventListener("click", () => sortBy(table, heading));
    }
  }
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
  });
})();
