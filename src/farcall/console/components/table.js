// A table that the viewer sorts. Every value is shown as text.
import { absolute, relative } from "/console/static/times.js";

const h = (...args) => Vue.h(...args);
const cellOf = (cell) => (cell !== null && typeof cell === "object" ? cell : { v: cell });

function compare(a, b) {
  const [isNone, isOtherNone] = [a === null || a === undefined, b === null || b === undefined];
  if (isNone || isOtherNone) return isNone === isOtherNone ? 0 : isNone ? -1 : 1;
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true, sensitivity: "base" });
}

function csvField(value) {
  let text = value === null || value === undefined ? "" : String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = "'" + text; // a spreadsheet would compute it
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export default {
  props: { columns: Array, rows: Array, caption: String, empty: Object, sort: Object, csv: String },
  data() {
    return { by: this.sort.name, descending: this.sort.descending };
  },
  computed: {
    sorted() {
      const index = this.columns.findIndex((column) => column.name === this.by);
      if (index < 0) return this.rows;
      const sign = this.descending ? -1 : 1;
      return [...this.rows].sort((a, b) => sign * compare(cellOf(a[index]).v, cellOf(b[index]).v));
    },
  },
  methods: {
    sortBy(column) {
      if (this.by === column.name) this.descending = !this.descending;
      else [this.by, this.descending] = [column.name, column.kind === "number" || column.kind === "time"];
    },
    download() {
      const cells = (row) =>
        row.map((cell, i) => {
          const value = cellOf(cell).v;
          const isTime = this.columns[i].kind === "time" && typeof value === "number";
          return csvField(isTime ? new Date(value * 1000).toISOString() : value);
        });
      const lines = [this.columns.map((column) => csvField(column.label)), ...this.sorted.map(cells)];
      const text = lines.map((line) => line.join(",")).join("\r\n") + "\r\n";
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
      link.download = this.csv;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    },
    shown(cell, column) {
      const { v, t, h: href, s } = cellOf(cell);
      const isMissing = v === null || v === undefined || v === "";
      let inside = t ?? (isMissing ? "–" : typeof v === "number" && column.kind === "number" ? v.toLocaleString() : String(v));
      if (column.kind === "time" && !isMissing && t == null)
        inside = h("time", { datetime: new Date(v * 1000).toISOString(), title: absolute(v) }, relative(v));
      if (column.kind === "status" && !isMissing)
        inside = h("span", { class: "fc-status" }, [
          h("span", { class: `fc-dot fc-${s}`, "aria-hidden": "true" }),
          h("span", inside),
        ]);
      if (column.kind === "code" && !isMissing) inside = h("code", inside);
      return href ? h("a", { href }, inside) : inside;
    },
  },
  render() {
    if (this.rows.length === 0) {
      const { title, text, commands } = this.empty;
      return h("div", { class: "fc-empty" }, [
        h("p", { class: "fc-empty-title" }, title),
        text ? h("p", text) : null,
        commands ? h("pre", { tabindex: 0, role: "region", "aria-label": "Commands" }, commands) : null,
      ]);
    }
    const heads = this.columns.map((column) => {
      const isSorted = this.by === column.name;
      const order = isSorted ? (this.descending ? "descending" : "ascending") : "none";
      return h("th", { scope: "col", "aria-sort": order, class: `fc-k-${column.kind}` }, [
        h("button", { type: "button", onClick: () => this.sortBy(column) }, [
          column.label,
          h("span", { "aria-hidden": "true", class: "fc-arrow" }, isSorted ? (this.descending ? "▼" : "▲") : ""),
        ]),
      ]);
    });
    const rows = this.sorted.map((row) =>
      h("tr", row.map((cell, i) => h("td", { class: `fc-k-${this.columns[i].kind}` }, [this.shown(cell, this.columns[i])]))),
    );
    return h("div", { class: "fc-table" }, [
      h("div", { class: "fc-scroll", tabindex: 0, role: "region", "aria-label": this.caption }, [
        h("table", [
          h("caption", { class: "fc-hidden" }, this.caption),
          h("thead", h("tr", heads)),
          h("tbody", rows),
        ]),
      ]),
      this.csv
        ? h("button", { type: "button", class: "fc-plain", onClick: this.download }, "Download as CSV")
        : null,
    ]);
  },
};
