"use strict";
(() => {
  const FOLDED_ROWS = 12;
  const LEAST_FOLDED = 20;
  const FORMULA_STARTS = /^[=+\-@\t\r\n]/;

  const headings = (table) => [...table.tHead.rows[0].cells];
  const sortKey = (cell) => cell.dataset.sort ?? cell.textContent.trim();
  const rank = (cell) => {
    const text = sortKey(cell);
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
    for (const other of headings(table)) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].sort((one, two) => {
      const order = compare(rank(one.cells[place]), rank(two.cells[place]));
      return descending ? -order : order;
    });
    body.append(...rows);
    fold(table);
  };
  const makeSortable = (table) => {
    for (const heading of headings(table)) {
      const title = heading.querySelector(".heading") ?? heading;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...title.childNodes);
      title.append(button);
      button.addEventListener("click", () => sortBy(table, heading));
    }
  };

  const fold = (table) => {
    const open = table.dataset.open !== "false";
    [...table.tBodies[0].rows].forEach((row, number) => (row.hidden = !open && number >= FOLDED_ROWS));
  };
  const toolButton = (tools, text, act) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () => act(button));
    tools.append(button);
    return button;
  };
  const makeFoldable = (table, tools) => {
    const count = table.tBodies[0].rows.length;
    const toggle = (button) => {
      const open = table.dataset.open === "false";
      table.dataset.open = open;
      button.setAttribute("aria-expanded", open);
      button.textContent = open ? `Show the first ${FOLDED_ROWS} rows` : `Show all ${count} rows`;
      fold(table);
    };
    toggle(toolButton(tools, "", toggle));
  };

  // Cells as in pipeline/export/csv_cells.py: text that a spreadsheet might run gets an apostrophe in front.
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const inert = (text) => quoted(FORMULA_STARTS.test(text) ? `'${text}` : text);
  const isNumber = (cell) => cell.classList.contains("number") && cell.dataset.sort !== undefined;
  const csvOf = (table) => {
    const rows = [...table.tBodies[0].rows];
    const withEnds = headings(table).map((_, place) => rows.some((row) => row.cells[place].dataset.low !== undefined));
    const title = (heading) => heading.textContent.replace(/\s+/g, " ").trim();
    const first = headings(table).flatMap((heading, place) => {
      const ends = withEnds[place] ? [`${title(heading)}, lower end`, `${title(heading)}, upper end`] : [];
      return [title(heading), ...ends].map(inert);
    });
    const lines = rows.map((row) =>
      [...row.cells].flatMap((cell, place) => {
        const value = isNumber(cell) ? cell.dataset.sort : inert(cell.textContent.trim());
        return withEnds[place] ? [value, cell.dataset.low ?? "", cell.dataset.high ?? ""] : [value];
      }),
    );
    return [first, ...lines].map((cells) => cells.join(",") + "\r\n").join("");
  };
  const save = (table) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff", csvOf(table)], { type: "text/csv" }));
    link.download = `${table.dataset.name}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const tools = document.createElement("div");
    tools.className = "table-tools";
    if (table.tBodies[0].rows.length > 2) makeSortable(table);
    if (table.tBodies[0].rows.length > LEAST_FOLDED) makeFoldable(table, tools);
    toolButton(tools, "Save as CSV", () => save(table)).setAttribute("aria-label", `Save ${table.dataset.name} as CSV`);
    table.closest(".scroll").after(tools);
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
